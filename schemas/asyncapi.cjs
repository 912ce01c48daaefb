// Checks an AsyncAPI document with AsyncAPI's own parser: `node asyncapi.cjs`. With the name of an HTML file it also
// renders the document into that file, with everything in it that a browser needs:
// `node asyncapi.cjs OUT.html [DOCUMENT]`. Each finding is a line of output; exit code 1 with an error or a warning.
"use strict";

const { mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { Parser, fromFile, stringify } = require("@asyncapi/parser");

const SEVERITIES = ["error", "warning", "information", "hint"];
const WARNING = SEVERITIES.indexOf("warning");
const COMPONENT = dirname(require.resolve("@asyncapi/react-component/package.json"));

const [target, source = join(__dirname, "asyncapi.json")] = process.argv.slice(2);

function page(document) {
  const part = (...path) => readFileSync(join(COMPONENT, ...path), "utf8");
  const inert = (text) => text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${document.info().title()} over MQTT</title>
<link rel="icon" href="data:,">
<style>${part("styles", "default.min.css")}</style>
<div id="asyncapi"></div>
<script>${inert(part("browser", "standalone", "without-parser.js"))}</script>
<script>
AsyncApiStandalone.render({
  schema: ${inert(stringify(document))},
  config: { show: { sidebar: true }, expand: { messageExamples: true } },
}, globalThis.document.getElementById("asyncapi"));
</script>
</html>
`;
}

async function main() {
  const { document, diagnostics } = await fromFile(new Parser(), source).parse();
  for (const { severity, path, message } of diagnostics) {
    console.log(`${SEVERITIES[severity]}: ${path.join("/") || "document"}: ${message}`);
  }
  if (!document || diagnostics.some(({ severity }) => severity <= WARNING)) {
    process.exitCode = 1;
  } else if (target) {
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, page(document));
  }
}

main();
