"""Drives a page in a headless Chromium through its debugging pipe (two descriptors, JSON ended by zero bytes)."""
import base64
import json
import os
import subprocess


class Page:
    def __init__(self, chromium, profile, url):
        to_read, self.to = os.pipe()
        answers, from_write = os.pipe()
        self.answers, self.rest, self.next, self.requests = answers, b"", 0, []
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", chromium, "--headless", "--no-sandbox",
             "--disable-gpu", f"--user-data-dir={profile}", "--remote-debugging-pipe", "--window-size=900,1400"],
            pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=url)

    def message(self):
        while b"\0" not in self.rest:
            some = os.read(self.answers, 1 << 20)
            assert some, "Chromium ended"
            self.rest += some
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def ask(self, method, **parameters):
        self.next += 1
        call = {"id": self.next, "method": method, "params": parameters}
        if hasattr(self, "session"):
            call["sessionId"] = self.session
        whole = json.dumps(call).encode() + b"\0"
        while whole:
            whole = whole[os.write(self.to, whole):]
        while True:
            answer = self.message()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self.next:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression):
        """Returns the value of an expression or of its promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path, scheme):
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.answers)
