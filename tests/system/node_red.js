// Node-RED with the flow in FOLDER/flow.json, at a free port of this machine that it prints.
"use strict";
const http = require("http");
const [modules, folder] = process.argv.slice(2);
const RED = require(`${modules}/node-red`);
const server = http.createServer();
RED.init(server, {
    userDir: folder,
    flowFile: "flow.json",
    disableEditor: true,
    lang: "en-US",
    httpAdminRoot: "/",
    httpNodeRoot: false,
    externalModules: { autoInstall: false, palette: { allowInstall: false }, modules: { allowInstall: false } },
    logging: { console: { level: "info" } },
    telemetry: { enabled: false },
});
server.on("request", (request, response) => RED.httpAdmin(request, response));
RED.start().then(() => server.listen(0, "127.0.0.1", () => console.log(`PORT ${server.address().port}`)));
process.on("SIGTERM", () => RED.stop().then(() => process.exit(0)));
