//! A module in a program of its own: what it leaves alone, and what of the file it does not apply.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use countersign::clock::SystemClock;
use countersign::internals::{Format, LogLayer};
use countersign::{MethodRules, Module, Rule};
use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

use super::free_port::free_port;
use super::library::{CALLER, GREETER, append, connection_to, homes};
use super::support::Folder;
use greeter::greeter_service_client::GreeterServiceClient;
use greeter::greeter_service_server::{GreeterService, GreeterServiceServer};
use greeter::{GreetOftenRequest, GreetOftenResponse, GreetRequest, GreetResponse};

#[path = "../../examples/greeter/mod.rs"]
mod greeter;

/// A process that runs [`child`].
struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it in the folder's home `greeter`.
    fn start(folder: &Folder, how: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(CHILD);
        Self::of(command, folder, how)
    }

    /// Starts it with a command of the test's own, which ends in [`CHILD`].
    fn of(mut command: Command, folder: &Folder, how: &str) -> Self {
        let mut child = command
            .env("EMBEDDED_CHILD", how)
            .env("EMBEDDED_HOME", folder.path("greeter"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Reads what it prints up to the line `text`; returns the lines before.
    #[track_caller]
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let length = self.stdout.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "it ended without {text:?}: {lines:#?}");
            if line.trim_end() == text {
                return lines;
            }
            lines.push(line);
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    #[track_caller]
    fn succeeds(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CHILD: [&str; 4] = ["--exact", "embedded::child", "--ignored", "--nocapture"];

fn say(text: &str) {
    println!("\n{text}");
}

#[tokio::test]
#[ignore = "a process that other tests start"]
async fn child() {
    let Some(how) = std::env::var_os("EMBEDDED_CHILD") else {
        return;
    };
    let home = std::env::var_os("EMBEDDED_HOME").unwrap();
    let module = Module::open(home).unwrap();
    match how.to_str().unwrap() {
        "follow" => {
            let mut trust = module.trust().subscribe();
            say("is open");
            trust.changed().await.unwrap();
            say("has reloaded");
        }
        "serve" => {
            say("is open");
            let (rules, routes) = (MethodRules::deny_all(), Routes::default());
            module.serve(rules, routes).await.unwrap();
            say("has served");
        }
        "drop" => {
            let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC);
            let layer = layer.with_output(Format::Json, say);
            let log = tracing_subscriber::registry().with(layer);
            tracing::subscriber::set_global_default(log).unwrap();
            drop(module);
            while alive_tasks() > 0 {
                tokio::task::yield_now().await;
            }
            say("is dropped");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            assert_eq!(alive_tasks(), 0);
            say("lives");
        }
        other => panic!("{other}"),
    }
}

fn alive_tasks() -> usize {
    let runtime = tokio::runtime::Handle::current();
    runtime.metrics().num_alive_tasks()
}

/// Has the file say something else, which a reload applies.
fn change(folder: &Folder) {
    let text = folder.read(GREETER);
    folder.write(GREETER, text.replace("IMPERSONATION", "X"));
}

#[test]
fn sighup_does_nothing_after_the_last_module_was_dropped() {
    let folder = homes("");
    append(&folder, GREETER, "countersign.reload=false");
    let mut program = Program::start(&folder, "drop");
    program.until("is dropped");

    change(&folder);
    let files = folder.files();
    for _ in 0..3 {
        program.signal("-HUP");
    }
    // A signal that ends a process does so before the process reads what comes after it.
    writeln!(program.stdin, "go on").unwrap();

    let said = program.until("lives");
    assert!(said.iter().all(|line| line.trim().is_empty()), "{said:#?}");
    assert_eq!(folder.files(), files);
    program.succeeds();
}

#[test]
fn ctrl_c_ends_serve_and_the_program_goes_on() {
    let folder = homes("");
    let port = free_port();
    append(
        &folder,
        GREETER,
        &format!("ataccama.server.grpc.port={port}"),
    );
    let mut program = Program::start(&folder, "serve");
    program.until("is open");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }

    program.signal("-INT");

    program.until("has served");
    program.succeeds();
}

/// Has a program whose home cannot be written follow a change that came from outside.
fn is_followed(folder: &Folder, mut program: Program) {
    let before = folder.names("greeter");
    program.until("is open");
    // Nothing but the signal leads to a reload.
    change(folder);
    program.signal("-HUP");

    program.until("has reloaded");
    program.succeeds();
    assert_eq!(folder.names("greeter"), before);
}

#[cfg(target_os = "linux")]
#[test]
fn home_on_a_read_only_mount_is_opened_and_followed() {
    let folder = homes("");
    append(&folder, GREETER, "countersign.reload=false");
    let script = "mount --bind greeter greeter && mount -o remount,bind,ro greeter || exit 99; \
                  ! touch greeter/written 2>/dev/null || exit 99; \
                  exec \"$0\" \"$@\"";
    let mounted = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(program);
        command.current_dir(folder.path(""));
        command
    };
    let tried = mounted(Path::new("true")).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        println!("skipped: nothing can be mounted here: {tried:?}");
        return;
    }

    let mut command = mounted(&std::env::current_exe().unwrap());
    command.args(CHILD);

    is_followed(&folder, Program::of(command, &folder, "follow"));
}

/// A user without rights, where the tests run as root.
const STRANGER: u32 = 65_534;

#[test]
fn home_that_its_user_may_not_write_is_opened_and_followed() {
    let folder = homes("");
    append(&folder, GREETER, "countersign.reload=false");
    let allow = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(CHILD);
    let is_root = std::os::unix::fs::MetadataExt::uid(&folder.path("").metadata().unwrap()) == 0;
    if is_root {
        std::os::unix::fs::chown(folder.path(GREETER), Some(STRANGER), Some(STRANGER)).unwrap();
        command.uid(STRANGER).gid(STRANGER);
    }
    allow(&folder.path(GREETER), 0o400);
    for name in ["greeter/etc", "greeter", ""] {
        allow(&folder.path(name), 0o555);
    }

    let mut program = Program::of(command, &folder, "follow");
    program.until("is open");
    // Its owner writes the file, and nothing else.
    allow(&folder.path(GREETER), 0o600);
    change(&folder);
    program.signal("-HUP");

    program.until("has reloaded");
    program.succeeds();
    assert_eq!(folder.names("greeter"), ["etc"]);
    for name in ["", "greeter", "greeter/etc"] {
        allow(&folder.path(name), 0o755);
    }
}

/// The lines that are logged on this thread from now on.
fn logged() -> (Arc<Mutex<Vec<serde_json::Value>>>, DefaultGuard) {
    // With one subscriber alone, the first thread to log decides what is wanted.
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
    let lines = Arc::<Mutex<Vec<_>>>::default();
    let kept = Arc::clone(&lines);
    let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC);
    let layer = layer.with_output(Format::Json, move |line| {
        kept.lock()
            .unwrap()
            .push(serde_json::from_str(line).unwrap());
    });
    let log = tracing_subscriber::registry().with(layer);
    (lines, tracing::subscriber::set_default(log))
}

#[tokio::test]
async fn logging_and_registry_settings_are_noted_once_at_info() {
    let folder = homes("");
    let (lines, _log) = logged();
    drop(Module::open(folder.path("greeter")).unwrap());
    assert_eq!(*lines.lock().unwrap(), [] as [serde_json::Value; 0]);
    let settings = [
        "ataccama.logging.plain-text-file-appender",
        "countersign.registry.max-engines",
    ];
    let [logging, registry] = settings;
    append(&folder, GREETER, &format!("{logging}=true\n{registry}=5"));

    let module = Module::open(folder.path("greeter")).unwrap();
    let mut trust = module.trust().subscribe();
    change(&folder);
    trust.changed().await.unwrap();

    let lines = lines.lock().unwrap();
    let notes: Vec<_> = lines
        .iter()
        .filter(|line| line["settings"].is_string())
        .collect();
    let [note] = notes.as_slice() else {
        panic!("{lines:#?}");
    };
    assert_eq!(
        (&note["severity"], &note["eventId"]),
        (&"INFO".into(), &"startup".into())
    );
    let named = note["settings"].as_str().unwrap();
    for name in settings {
        assert!(named.contains(name), "{name}: {named}");
    }
    let file = note["file"].as_str().unwrap();
    assert!(file.ends_with(GREETER), "{file}");
    // None of them is applied.
    assert_eq!(folder.names("greeter"), ["etc"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn opening_leaves_the_limits_of_the_process_alone() {
    let folder = homes("");
    let limits = || std::fs::read_to_string("/proc/self/limits").unwrap();
    let before = limits();

    let _module = Module::open(folder.path("greeter")).unwrap();

    assert_eq!(limits(), before);
}

/// Greets with more than tonic's own 4 MB.
struct Long;

const LENGTH: usize = 5 << 20;

#[tonic::async_trait]
impl GreeterService for Long {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let text = "x".repeat(LENGTH);
        Ok(Response::new(GreetResponse { text }))
    }

    type GreetOftenStream = ReceiverStream<Result<GreetOftenResponse, Status>>;

    async fn greet_often(
        &self,
        _: Request<GreetOftenRequest>,
    ) -> Result<Response<Self::GreetOftenStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn modules_message_size_is_set_on_the_generated_server_and_client() {
    let folder = homes("");
    append(
        &folder,
        GREETER,
        "ataccama.server.grpc.max-message-size=8MB",
    );
    let module = Module::open(folder.path("greeter")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let rules =
        MethodRules::deny_all().allow_service::<GreeterServiceServer<Long>>(Rule::any_identity());
    let size = module.max_message_size();
    let service = GreeterServiceServer::new(Long)
        .max_decoding_message_size(size)
        .max_encoding_message_size(size);
    tokio::spawn(async move {
        let forever = std::future::pending();
        module
            .serve_on(listener, rules, Routes::new(service), forever)
            .await
    });
    let setting = "ataccama.client.grpc.properties.max-message-size=8MB";
    append(
        &folder,
        CALLER,
        &format!("{}\n{setting}", connection_to(port)),
    );
    let caller = Module::open(folder.path("caller")).unwrap();
    let channel = caller.channel("greeter-dev").unwrap();

    let as_generated = GreeterServiceClient::new(channel.clone())
        .greet(GreetRequest {})
        .await;
    let mut client =
        GreeterServiceClient::new(channel).max_decoding_message_size(caller.max_reply_size());
    let greeting = client.greet(GreetRequest {}).await.unwrap().into_inner();

    assert_eq!(as_generated.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(greeting.text.len(), LENGTH);
}
