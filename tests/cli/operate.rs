//! The files of `examples/` that start modules elsewhere: systemd's units, the container's image and
//! the manifests for Kubernetes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::modules::Running;
use super::support::Folder;
use super::two_hosts::{Host, hosts};

/// The user and the group of the manifests.
const USER: u32 = 65_532;

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
}

/// Returns what a program prints; `None` if it is not there, unless it must be.
#[track_caller]
fn printed(program: &mut Command) -> Option<String> {
    let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
    let output = match program.output() {
        Ok(output) => output,
        Err(error) if required => panic!("{program:?}: {error}"),
        Err(_) => return None,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !required && said.contains("No module named") {
        return None;
    }
    assert!(output.status.success(), "{program:?}: {said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &said)
}

#[test]
fn systemd_verifies_the_units() {
    let folder = Folder::new();
    for module in ["dpm", "dpe"] {
        let name = format!("countersign-{module}.service");
        let unit = fs::read_to_string(examples().join("systemd").join(&name)).unwrap();
        let start = format!(
            "ExecStart=/usr/local/bin/countersign {module} run --home /var/lib/countersign-{module}\n"
        );
        assert!(unit.contains(&start), "{unit}");
        // systemd looks whether the program is there.
        let here = unit.replace(
            "/usr/local/bin/countersign",
            env!("CARGO_BIN_EXE_countersign"),
        );
        folder.write(&name, here);
        let path = folder.path(&name);
        let verified = printed(Command::new("systemd-analyze").arg("verify").arg(&path));
        let mut security = Command::new("systemd-analyze");
        // 10 is no protection at all, 2 is much.
        security.args(["security", "--offline=true", "--threshold=20"]);
        let _ = printed(security.arg(&path));
        assert!(verified.is_none_or(|said| said.is_empty()), "{name}");
    }
}

#[test]
fn image_is_made_with_the_oldest_rust() {
    let image = fs::read_to_string(examples().join("container/Dockerfile")).unwrap();
    let package = include_str!("../../Cargo.toml");
    let (_, rust) = package.split_once("\nrust-version = \"").unwrap();
    let rust = rust.split('"').next().unwrap();

    assert!(image.contains(&format!("\nFROM rust:{rust}-bookworm AS build\n")));
    assert!(image.contains("\nRUN cargo install --locked --path . --root /out\n"));
    assert!(image.contains("\nUSER 65532:65532\n"));
    let ignored = fs::read_to_string(examples().join("container/Dockerfile.dockerignore")).unwrap();
    for line in package.lines().filter(|line| line.starts_with("path = ")) {
        let folder = line.split(['"', '/']).nth(1).unwrap();
        assert!(ignored.contains(&format!("\n!{folder}\n")), "{line}");
    }
}

/// Returns the objects of a manifest.
fn manifest(name: &str) -> Option<Vec<Value>> {
    let read =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let path = examples().join("kubernetes").join(name);
    let text = printed(Command::new("python3").args(["-c", read]).arg(path))?;
    Some(serde_json::from_str(&text).unwrap())
}

/// A pod as the manifest has it, in the place of a cluster's node.
struct Pod<'a> {
    host: &'a Host,
    set: &'a Value,
}

impl Pod<'_> {
    fn container(&self) -> &Value {
        &self.set["spec"]["template"]["spec"]["containers"][0]
    }

    /// Returns where a path of the container is here.
    fn path(&self, inside: &str) -> std::path::PathBuf {
        self.host.folder.path(inside.trim_start_matches('/'))
    }

    /// Mounts a new volume as the home, and in it the files of `etc` as those of a secret.
    fn mount(&self, etc: &[(String, Vec<u8>)]) {
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(self.host.folder.path(""), open).unwrap();
        for mount in self.container()["volumeMounts"].as_array().unwrap() {
            let place = self.path(mount["mountPath"].as_str().unwrap());
            fs::create_dir_all(&place).unwrap();
            chown(&place, Some(0), Some(USER)).unwrap();
            // As a node makes them.
            let is_secret = mount["name"] == "etc";
            let mode = if is_secret { 0o3777 } else { 0o2775 };
            fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
            if is_secret {
                self.publish("..1", etc);
                for (name, _) in etc {
                    symlink(format!("..data/{name}"), place.join(name)).unwrap();
                }
            }
        }
    }

    /// Makes `etc` what the secret's files show, as a node does: all at once.
    fn publish(&self, version: &str, etc: &[(String, Vec<u8>)]) {
        let name = self.set["metadata"]["name"].as_str().unwrap();
        let place = self.path(&format!("/home/{name}/etc"));
        fs::create_dir(place.join(version)).unwrap();
        for (name, text) in etc {
            let file = place.join(version).join(name);
            fs::write(&file, text).unwrap();
            chown(&file, Some(0), Some(USER)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        }
        symlink(version, place.join("..data_tmp")).unwrap();
        fs::rename(place.join("..data_tmp"), place.join("..data")).unwrap();
    }

    fn start(&self) -> Running {
        let container = self.container();
        let variables = container["env"].as_array().unwrap().iter();
        let variables = variables.map(|it| {
            let (name, value) = (it["name"].as_str().unwrap(), it["value"].as_str().unwrap());
            format!("{name}={value}")
        });
        let arguments = container["args"].as_array().unwrap().iter();
        let arguments = arguments.map(|it| {
            let it = it.as_str().unwrap();
            let home = self.host.folder.path("home");
            it.replace("/home", home.to_str().unwrap())
        });
        let line = format!(
            "exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --inh-caps=-all \
             env -i {} {} {}",
            variables.collect::<Vec<_>>().join(" "),
            env!("CARGO_BIN_EXE_countersign"),
            arguments.collect::<Vec<_>>().join(" "),
        );
        Running::of(self.host.command(&line))
    }

    /// Returns the URLs of the probes, as the node asks them.
    fn probes(&self, address: &str) -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe"].map(|probe| {
            let get = &self.container()[probe]["httpGet"];
            let path = get["path"].as_str().unwrap();
            format!("http://{address}:{}{path}", get["port"])
        });
        probes.into()
    }
}

#[test]
fn pods_of_the_manifests_become_ready() {
    let manifests = ["dpm.yaml", "dpe.yaml"].map(manifest);
    let [Some(dpm), Some(dpe)] = &manifests else {
        return;
    };
    let Some(both) = hosts("pods") else {
        return;
    };
    let folder = Folder::new();
    let page = include_str!("../../docs/operate.md");
    let mut pair = page.lines().filter(|line| line.contains("dpe-0.dpe"));
    let pair = pair.next().unwrap().strip_prefix("countersign ").unwrap();
    folder.run(pair).exits(0);
    let [registry, engine] = &both;
    let pods = [(registry, dpm, "dpm"), (engine, dpe, "dpe")].map(|(host, objects, name)| {
        let [service, set] = &objects[..] else {
            panic!("{objects:#?}");
        };
        assert_eq!(service["kind"], "Service");
        assert_eq!(service["metadata"]["name"], name);
        let security = &set["spec"]["template"]["spec"]["securityContext"];
        assert_eq!(security["fsGroupChangePolicy"], "OnRootMismatch");
        let pod = Pod { host, set };
        pod.mount(&secret(&folder, name));
        pod
    });

    let [dpm, dpe] = &pods;
    let mut registry = dpm.start();
    registry.until(r#""eventId":"startup""#);
    let mut engine = dpe.start();
    registry.until(r#""newStatus":"READY""#);
    engine.until(r#""eventId":"register""#);

    for (pod, node, address) in [(dpm, 1, "10.87.0.1"), (dpe, 0, "10.87.0.2")] {
        for probe in pod.probes(address) {
            let curl = format!("curl -sf {probe}");
            let shown = both[node].command(&curl).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert_eq!(shown, r#"{"status":"UP"}"#, "{probe}");
        }
    }
    // A pod that is made again finds its volume, and on it the engine.
    registry.stop();
    let mut registry = dpm.start();
    registry.until(r#""eventId":"startup""#);
    // A changed secret: the engine's key is revoked.
    folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);
    dpm.publish("..2", &secret(&folder, "dpm"));
    registry.until_each([
        r#""eventId":"keyRevoked""#,
        r#""oldStatus":"READY","newStatus":"DISCONNECTED""#,
    ]);
}

/// Returns the files of which the secret is made.
fn secret(folder: &Folder, module: &str) -> Vec<(String, Vec<u8>)> {
    let names = folder.names(&format!("{module}/etc")).into_iter();
    let read = |name: String| {
        let path = folder.path(&format!("{module}/etc/{name}"));
        (name, fs::read(path).unwrap())
    };
    names.map(read).collect()
}
