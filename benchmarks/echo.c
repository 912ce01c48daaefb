/* What a small C client takes to hand a message on: libmosquitto and nothing else, one message at a time.
 * cc -O2 echo.c -lmosquitto; ./a.out HOST PORT FROM TO */
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>

static char **words;

static void arrived(struct mosquitto *client, void *to, const struct mosquitto_message *message)
{
    mosquitto_publish(client, NULL, to, message->payloadlen, message->payload, message->qos, false);
}

static void connected(struct mosquitto *client, void *to, int reason)
{
    (void)to;
    if (reason == 0)
        mosquitto_subscribe(client, NULL, words[3], 1);
}

int main(int count, char **given)
{
    words = given;
    if (count != 5) {
        fprintf(stderr, "usage: %s HOST PORT FROM TO\n", words[0]);
        return 2;
    }
    mosquitto_lib_init();
    struct mosquitto *client = mosquitto_new(NULL, true, words[4]);
    mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_connect_callback_set(client, connected);
    mosquitto_message_callback_set(client, arrived);
    if (mosquitto_connect(client, words[1], atoi(words[2]), 60) != MOSQ_ERR_SUCCESS)
        return 1;
    return mosquitto_loop_forever(client, -1, 1);
}
