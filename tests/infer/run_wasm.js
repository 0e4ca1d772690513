// Runs elbo-infer.wasm as the page does (examples/web/elbo.js), once for each line of standard input: a JSON list of
// the command's words and its input; answers with a JSON object each.
//
//     node run_wasm.js ELBO.js PROGRAM.wasm MODEL.elbo
"use strict";
const fs = require("fs"), vm = require("vm");
vm.runInThisContext(fs.readFileSync(process.argv[2], "utf8"), { filename: process.argv[2] });
const program = new WebAssembly.Module(fs.readFileSync(process.argv[3]));
const model = new Uint8Array(fs.readFileSync(process.argv[4]));
for (const line of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const [words, input] = JSON.parse(line);
  console.log(JSON.stringify(elboRun(program, model, words, input)));
}
