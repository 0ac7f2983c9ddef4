//! Programs that speak to us in other languages: asked with JSON on stdin, answering on stdout.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Set where every peer is installed: a missing one then fails the test instead of skipping it.
const REQUIRE_PEERS: &str = "COUNTERSIGN_REQUIRE_PEERS";

/// A program with what a test needs of it.
pub(crate) struct Peer {
    /// What is missing when it is not there, for people.
    pub(crate) needs: &'static str,
    pub(crate) program: &'static str,
    /// Arguments with which it succeeds if it has all it needs.
    pub(crate) probe: &'static [&'static str],
    /// Its script in `tests/interop`.
    pub(crate) script: &'static str,
}

pub(super) const PYJWT: Peer = Peer {
    needs: "`python3` with PyJWT and cryptography (tests/interop/requirements.txt)",
    program: "python3",
    probe: &["-c", "import jwt, cryptography"],
    script: "token_peer.py",
};

pub(super) const JOSE: Peer = Peer {
    needs: "`node` with jose (`npm install`)",
    program: "node",
    probe: &["--input-type=module", "--eval", "import 'jose'"],
    script: "token_peer.mjs",
};

pub(super) const GRPCIO: Peer = Peer {
    needs: "`python3` with grpcio, grpcio-tools, grpcio-status and PyJWT (tests/interop/requirements.txt)",
    program: "python3",
    probe: &["-c", "import grpc, grpc_tools, grpc_status, jwt"],
    script: "engine_peer.py",
};

pub(super) const OPENSSL: Peer = Peer {
    needs: "`openssl`",
    program: "openssl",
    probe: &["version"],
    script: "",
};

impl Peer {
    /// Returns `true` if it is there; says on stderr what is missing when it is not.
    ///
    /// # Panics
    ///
    /// When it is not there although peers are required.
    pub(crate) fn is_there(&self) -> bool {
        let probe = Command::new(self.program)
            .args(self.probe)
            .current_dir(root())
            .output();
        if probe.is_ok_and(|probe| probe.status.success()) {
            return true;
        }
        assert!(
            std::env::var_os(REQUIRE_PEERS).is_none(),
            "{REQUIRE_PEERS} is set, but there is no {}",
            self.needs
        );
        // `eprintln` would not be shown for a test that passes.
        writeln!(std::io::stderr(), "skipped: there is no {}", self.needs).unwrap();
        false
    }

    /// Has its script do `operation` for each request, and returns the answers in that order.
    pub(super) fn ask(&self, operation: &str, requests: &[Value]) -> Vec<Value> {
        let script = root().join("tests/interop").join(self.script);
        let arguments = [script.as_os_str(), operation.as_ref()];
        let mut child = Command::new(self.program)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let requests = serde_json::to_vec(requests).unwrap();
        stdin.write_all(&requests).unwrap();
        drop(stdin);
        let stdout = succeeded(operation, child.wait_with_output().unwrap());
        serde_json::from_slice(&stdout).unwrap()
    }

    /// Runs it with `arguments`, separated by spaces, and returns what it prints.
    pub(super) fn print(&self, arguments: &str) -> String {
        let output = Command::new(self.program)
            .args(arguments.split(' '))
            .output();
        String::from_utf8(succeeded(arguments, output.unwrap())).unwrap()
    }
}

fn succeeded(what: &str, output: Output) -> Vec<u8> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {complaint}");
    output.stdout
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
