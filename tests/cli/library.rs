//! A file's promises, kept for an application that opens it.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign::grpc::{ConnectError, ServeError, cause, reason_of};
use countersign::identity::{DeploymentName, Role};
use countersign::jose::{Fingerprint, KeyId, KeyMaterial, PublicJwk};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::storage::Storage;
use countersign::testing::{own_deployment, trusted};
use countersign::token::Policy;
use countersign::{MethodRules, Module, OpenError, Reason, Rule, Transport};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::Status;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};

use super::free_port::free_port;
use super::modules::{ANY_PORT, paired};
use super::support::Folder;

pub(super) const GREETER: &str = "greeter/etc/application.properties";
pub(super) const CALLER: &str = "caller/etc/application.properties";

/// Two homes that are paired, with `more` for `pair`.
pub(super) fn homes(more: &str) -> Folder {
    let folder = Folder::new();
    let pair = format!("pair greeter={GREETER} caller={CALLER} --yes {more}");
    folder.run(&pair).exits(0);
    folder
}

#[test]
fn the_type_of_a_module_is_the_name_of_its_folder_however_that_is_written() {
    let folder = paired();
    for home in ["dpm", "dpm/etc/..", "dpm/etc/application.properties"] {
        let module = Module::load(folder.path(home)).unwrap();
        assert_eq!(module.own().module.as_str(), "dpm", "{home}");
    }
}

pub(super) fn append(folder: &Folder, file: &str, lines: &str) {
    let text = folder.read(file);
    folder.write(file, format!("{text}\n{lines}\n"));
}

pub(super) fn connection_to(port: u16) -> String {
    let start = "ataccama.client.connection.greeter";
    format!("{start}.host=localhost\n{start}.grpc.port={port}")
}

fn open(folder: &Folder, home: &str) -> Module {
    Module::open(folder.path(home)).unwrap()
}

/// Serves the greeter's home on a free port until the sender is dropped.
async fn served(folder: &Folder) -> (u16, oneshot::Sender<()>) {
    let module = open(folder, "greeter");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        let rules = MethodRules::deny_all();
        let served = module.serve_on(listener, rules, Routes::default(), stopped);
        served.await.unwrap();
    });
    (port, stop)
}

async fn who_am_i<T>(channel: T) -> Result<String, Status>
where
    T: GrpcService<tonic::body::Body, Error: Into<StdError>>,
    T::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes, Error: Into<StdError> + Send>
        + Send
        + 'static,
{
    let mut client = IdentityServiceClient::new(channel);
    let answer = client.who_am_i(WhoAmIRequest {}).await?;
    Ok(answer.into_inner().identity.unwrap().id)
}

#[tokio::test]
async fn file_with_tls_and_pins_is_served_and_dialled_with_them() {
    let folder = homes("--tls");
    let (port, _stop) = served(&folder).await;
    append(&folder, CALLER, &connection_to(port));
    let caller = open(&folder, "caller");

    let channel = caller.channel("greeter-dev").unwrap();
    assert_eq!(who_am_i(channel).await.unwrap(), "caller-dev");

    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    assert!(who_am_i(plain.connect_lazy()).await.is_err());
    for (uri, part) in [("http", "pinned"), ("https", "pinned")] {
        let endpoint = Endpoint::from_shared(format!("{uri}://127.0.0.1:{port}")).unwrap();
        let refused = caller.connect("greeter-dev", endpoint).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
    for over in [Transport::loopback(), Transport::dangerous_plaintext()] {
        let refused = caller.client_layer("greeter-dev", over).unwrap_err();
        assert!(matches!(refused, ConnectError::Refused(_)), "{refused}");
    }
}

#[tokio::test]
async fn layer_refuses_plaintext_where_the_file_turns_tls_on() {
    let folder = homes("--tls");
    let layer = open(&folder, "greeter").server_layer(MethodRules::deny_all());
    let address = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let health = tonic_health::server::health_reporter().1;
    let server = Server::builder().layer(layer).add_service(health);
    tokio::spawn(server.serve(address));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = until_it_is_there(&endpoint).await;

    let refused = who_am_i(channel).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::PlaintextNotAllowed));
}

async fn until_it_is_there(endpoint: &Endpoint) -> Channel {
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn revocation_in_the_file_reaches_a_layer_whose_module_was_dropped() {
    let folder = homes("");
    let (port, _stop) = served(&folder).await;
    append(&folder, CALLER, &connection_to(port));
    let channel = open(&folder, "caller").channel("greeter-dev").unwrap();
    assert_eq!(who_am_i(channel.clone()).await.unwrap(), "caller-dev");

    let text = folder.read(GREETER);
    folder.write(GREETER, text.replace("is-revoked=false", "is-revoked=true"));

    let refused = timeout(Duration::from_secs(20), async {
        loop {
            if let Err(refused) = who_am_i(channel.clone()).await {
                return refused;
            }
        }
    });
    assert_eq!(reason_of(&refused.await.unwrap()), Some(Reason::KeyRevoked));
}

#[tokio::test]
async fn module_that_is_dropped_follows_nothing() {
    let folder = homes("");
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let module = open(&folder, "caller");
    let layer = module.client_layer("greeter-dev", Transport::loopback());
    drop(module);
    assert_eq!(tasks(), 1);

    drop(layer);
    while tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn open_without_what_it_needs_of_a_runtime_is_an_error() {
    let folder = homes("");
    let home = folder.path("caller");

    assert!(matches!(Module::open(&home), Err(OpenError::NoRuntime)));
    let bare = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let opened = bare.block_on(async { Module::open(&home) });
    assert!(matches!(opened, Err(OpenError::NoDriver)));
}

#[test]
fn runtime_that_ended_shows_in_the_health() {
    let folder = homes("");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let module = runtime.block_on(async { open(&folder, "caller") });

    drop(runtime);

    let health = module.health().current();
    let reload = health
        .parts()
        .iter()
        .find(|part| part.name == "configReload");
    let reload = reload.unwrap();
    assert!(
        !reload.up && reload.detail.contains("runtime"),
        "{reload:?}"
    );
}

#[tokio::test]
async fn opening_writes_nothing_and_several_may_open_one_home() {
    let folder = homes("");
    let before = folder.files();

    let modules = [open(&folder, "caller"), open(&folder, "caller")];

    assert_eq!(folder.files(), before);
    drop(modules);
}

#[tokio::test]
async fn file_without_a_port_is_named_with_the_line_to_write() {
    let folder = homes("");
    let module = open(&folder, "greeter");
    let (rules, routes) = (MethodRules::deny_all(), Routes::default());

    let error = module.serve(rules, routes).await.unwrap_err().to_string();

    assert!(error.contains("ataccama.server.grpc.port="), "{error}");
    assert!(error.contains(GREETER), "{error}");
}

#[tokio::test]
async fn what_cannot_be_served_as_the_file_says_is_an_error() {
    let folder = homes("");
    let serve = async |module: &Module, at: &str, rules: MethodRules| {
        let listener = TcpListener::bind(at).await.unwrap();
        let serving = module.serve_on(listener, rules, Routes::default(), std::future::pending());
        serving.await.unwrap_err()
    };
    let none = MethodRules::deny_all;
    let module = open(&folder, "greeter");

    let beyond = serve(&module, "0.0.0.0:0", none()).await;
    assert!(refuses(&beyond, "has no TLS"), "{beyond:?}");
    let open_to_all = homes("");
    let more = "countersign.server.allow-plaintext=true\n\
                ataccama.authentication.grpc.internal.jwt.enable=false\n";
    open_to_all.write(GREETER, open_to_all.read(GREETER) + more);
    let beyond = serve(&open(&open_to_all, "greeter"), "0.0.0.0:0", none()).await;
    assert!(refuses(&beyond, "calls need no token"), "{beyond:?}");
    let own = none()
        .allow("/grpc.health.v1.Health/Check", Rule::any_identity())
        .unwrap();
    let taken = serve(&module, "127.0.0.1:0", own).await;
    assert!(refuses(&taken, "rules of its own"), "{taken:?}");
    let once = Module::load(folder.path("greeter")).unwrap();
    let loaded = serve(&once, "127.0.0.1:0", none()).await;
    assert!(refuses(&loaded, "`Module::open`"), "{loaded:?}");
    append(
        &folder,
        GREETER,
        "countersign.server.allow-plaintext=true\nserver.port=1\nserver.address=192.0.2.1",
    );
    let http = serve(&open(&folder, "greeter"), "0.0.0.0:0", none()).await;
    assert!(matches!(http, ServeError::Setup(..)), "{http:?}");
    assert!(http.to_string().contains("set `server.port`"), "{http:?}");
}

fn refuses(error: &ServeError, why: &str) -> bool {
    matches!(error, ServeError::Refused(text) if text.contains(why))
}

#[tokio::test]
async fn routes_with_a_health_service_of_their_own_do_not_panic() {
    let folder = homes("");
    append(
        &folder,
        GREETER,
        &format!("ataccama.server.grpc.port={}", free_port()),
    );
    let module = open(&folder, "greeter");
    let routes = Routes::new(tonic_health::server::health_reporter().1);

    let served = module
        .serve_until(MethodRules::deny_all(), routes, async {})
        .await;

    served.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_port_is_served_where_it_is_written() {
    let folder = homes("");
    let http = free_port();
    append(&folder, GREETER, &format!("server.port={http}"));
    let (_, _stop) = served(&folder).await;

    while std::net::TcpStream::connect(("127.0.0.1", http)).is_err() {
        tokio::task::yield_now().await;
    }
    let answer = super::http::readiness_becomes(http, 200);

    assert!(answer.contains("UP"), "{answer}");
}

#[tokio::test]
async fn no_or_several_connections_are_an_error_with_the_lines_to_write() {
    let folder = homes("");
    let (port, _stop) = served(&folder).await;
    let none = open(&folder, "caller").channel("greeter-dev").unwrap_err();
    let none = none.to_string();
    let (_, lines) = none.split_once(":\n").unwrap();
    let lines = lines
        .replace("<host>", "localhost")
        .replace("<port>", &port.to_string());
    append(&folder, CALLER, &lines);

    let channel = open(&folder, "caller").channel("greeter-dev").unwrap();
    assert_eq!(who_am_i(channel).await.unwrap(), "caller-dev");

    let second = connection_to(port).replace("greeter", "second");
    let chosen = "countersign.client.connection.second.deployment=greeter-dev";
    append(&folder, CALLER, &format!("{second}\n{chosen}"));
    let several = open(&folder, "caller").channel("greeter-dev").unwrap_err();
    let several = several.to_string();
    for part in [
        "`greeter-dev`, `second`",
        CALLER,
        "\n  countersign.client.connection.<connection>.deployment=",
    ] {
        assert!(several.contains(part), "{several}");
    }
    let unknown = open(&folder, "caller").channel("nobodys-dev").unwrap_err();
    assert!(matches!(unknown, ConnectError::Deployment(_)));
}

#[tokio::test]
async fn connection_that_the_file_does_not_write_leads_nowhere() {
    let folder = Folder::new();
    let dpm = "dpm/etc/application.properties";
    let pair = format!("pair dpm={dpm} caller={CALLER} --yes");
    folder.run(&pair).exits(0);

    let none = open(&folder, "caller").channel("dpm-dev").unwrap_err();
    assert!(none.to_string().contains("no connection leads"), "{none}");
    let other = connection_to(8531).replace("greeter", "registry");
    let chosen = "countersign.client.connection.registry.deployment=dpm-dev";
    append(&folder, CALLER, &format!("{other}\n{chosen}"));
    open(&folder, "caller").channel("dpm-dev").unwrap();
}

#[tokio::test]
async fn channel_to_the_dpm_has_the_default_address() {
    let folder = Folder::new();
    let dpe = "dpe/etc/application.properties";
    let pair = format!("pair dpm=dpm/etc/application.properties dpe={dpe} --yes");
    folder.run(&pair).exits(0);
    let connections = folder.read(dpe);
    let connections = connections
        .lines()
        .filter(|line| line.contains("connection."));
    assert_eq!(connections.count(), 0);

    open(&folder, "dpe").channel("dpm-dev").unwrap();

    // A connection that is written goes before it.
    let other = connection_to(8531).replace("greeter", "registry");
    let chosen = "countersign.client.connection.registry.deployment=dpm-dev";
    append(&folder, dpe, &format!("{other}\n{chosen}"));
    open(&folder, "dpe").channel("dpm-dev").unwrap();
}

#[tokio::test]
async fn client_layer_refuses_plaintext_where_the_fallback_turns_tls_on() {
    let folder = Folder::new();
    let dpm = "dpm/etc/application.properties";
    let pair = format!("pair dpm={dpm} caller={CALLER} --yes");
    folder.run(&pair).exits(0);
    let certificate = homes("--tls").read("greeter/etc/greeter-dev-tls.pem");
    folder.write("caller/etc/peer.pem", certificate);
    let tls = "ataccama.client.grpc.tls";
    let lines = format!("{tls}.enabled=true\n{tls}.trust-cert-collection=file:etc/peer.pem");
    append(&folder, CALLER, &lines);
    let caller = open(&folder, "caller");

    let refused = caller.client_layer("dpm-dev", Transport::loopback());
    assert!(
        matches!(refused, Err(ConnectError::Refused(_))),
        "{refused:?}"
    );
    let endpoint = Endpoint::from_static("http://127.0.0.1:8531");
    let refused = caller.connect("dpm-dev", endpoint);
    assert!(matches!(refused, Err(ConnectError::Refused(_))));
}

#[tokio::test]
async fn message_of_a_callee_above_the_files_size_is_refused() {
    let folder = homes("");
    let (port, _stop) = served(&folder).await;
    append(&folder, CALLER, &connection_to(port));
    let setting = "ataccama.client.grpc.properties.max-message-size";
    append(&folder, CALLER, &format!("{setting}=16B"));

    let channel = open(&folder, "caller").channel("greeter-dev").unwrap();
    let refused = who_am_i(channel).await.unwrap_err();

    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    assert!(refused.message().contains(setting), "{refused}");
}

#[tokio::test]
async fn server_and_client_each_have_the_message_size_of_their_own_setting() {
    let folder = homes("");
    let of_replies = "ataccama.client.grpc.properties.max-message-size=1GB";
    append(&folder, CALLER, of_replies);

    let module = open(&folder, "caller");

    assert_eq!(module.max_message_size(), 4 << 20);
    assert_eq!(module.max_reply_size(), 1 << 30);
}

#[tokio::test]
async fn reflection_shows_the_services_that_rules_describe() {
    use prost::Message as _;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let folder = homes("");
    let module = open(&folder, "greeter");
    let service = ServiceDescriptorProto {
        name: Some("B".to_owned()),
        method: vec![prost_types::MethodDescriptorProto {
            name: Some("Get".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        package: Some("a".to_owned()),
        service: vec![service],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    let rules = MethodRules::described(&[&set]).unwrap();
    let rules = rules.allow("/a.B/Get", Rule::any_identity()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let forever = std::future::pending();
        module
            .serve_on(listener, rules, Routes::default(), forever)
            .await
    });

    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = ServerReflectionClient::new(until_it_is_there(&endpoint).await);
    let asked = MessageRequest::FileContainingSymbol("a.B".to_owned());
    let request = ServerReflectionRequest {
        message_request: Some(asked),
        ..Default::default()
    };
    let answers = client.server_reflection_info(tokio_stream::once(request));
    let answer = answers.await.unwrap().into_inner().message().await.unwrap();

    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.unwrap().message_response
    else {
        panic!("no descriptor");
    };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn endpoint_over_a_unix_socket_is_not_dialled_by_the_name_that_stands_for_it() {
    let folder = homes("");
    let endpoint = Endpoint::from_static("unix:/tmp/countersign.sock");

    let refused = open(&folder, "caller").connect("greeter-dev", endpoint);

    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Unix socket"), "{text}");
}

#[tokio::test]
async fn endpoint_is_judged_by_its_uri() {
    let folder = homes("");
    let (port, _stop) = served(&folder).await;
    let caller = open(&folder, "caller");
    let over = |uri: String| {
        let endpoint = Endpoint::from_shared(uri).unwrap();
        caller.connect("greeter-dev", endpoint)
    };

    let near = over(format!("http://127.0.0.1:{port}")).unwrap();
    assert_eq!(who_am_i(near).await.unwrap(), "caller-dev");
    let far = over("http://192.0.2.2:1".to_owned()).unwrap_err();
    assert!(matches!(far, ConnectError::Plaintext(_)), "{far}");

    // Without TLS of its own, an `https` endpoint sends nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let without_tls = over(format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let (answer, accepted) = tokio::join!(who_am_i(without_tls), listener.accept());
    assert!(answer.is_err());
    let mut read = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut accepted.unwrap().0, &mut read)
        .await
        .unwrap();
    assert_eq!(read, b"");
}

/// Starts [`child`] in another process.
fn started(folder: &Folder, how: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "library::child", "--ignored", "--nocapture"])
        .env("LIBRARY_CHILD", how)
        .env("LIBRARY_HOME", folder.path("greeter"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "a process that other tests start"]
async fn child() {
    let variable = |name| std::env::var_os(name).map(|value| value.into_string().unwrap());
    let Some(how) = variable("LIBRARY_CHILD") else {
        return;
    };
    let home = variable("LIBRARY_HOME").unwrap();
    let module = match how.as_str() {
        "without signals" => Module::options(home).without_signals().open().unwrap(),
        _ => Module::open(home).unwrap(),
    };
    println!("\nis open");
    if how == "serve" {
        let (rules, routes) = (MethodRules::deny_all(), Routes::default());
        module.serve(rules, routes).await.unwrap();
        println!("\nhas served");
    } else {
        let mut trust = module.trust().subscribe();
        trust.changed().await.unwrap();
        println!("\nhas reloaded");
    }
}

/// Reads what `child` prints until `text`; `false` if it ends before.
fn printed(child: &mut std::process::Child, text: &str) -> bool {
    use std::io::Read as _;
    let mut read = String::new();
    let mut byte = [0];
    let stdout = child.stdout.as_mut().unwrap();
    while !read.contains(text) {
        if stdout.read(&mut byte).unwrap() == 0 {
            return false;
        }
        read.push(byte[0].into());
    }
    true
}

fn signal(child: &std::process::Child, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn sighup_reloads_and_does_not_end_the_process() {
    let folder = homes("");
    append(&folder, GREETER, "countersign.reload=false");
    let mut child = started(&folder, "follow");
    assert!(printed(&mut child, "is open"));

    let text = folder.read(GREETER);
    folder.write(GREETER, text.replace("IMPERSONATION", "X"));
    signal(&child, "HUP");

    assert!(printed(&mut child, "has reloaded"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn module_without_signals_leaves_sighup_alone() {
    let folder = homes("");
    let mut child = started(&folder, "without signals");
    assert!(printed(&mut child, "is open"));

    signal(&child, "HUP");

    assert!(!printed(&mut child, "has reloaded"));
    assert!(!child.wait().unwrap().success());
}

#[test]
fn sigterm_ends_serve_and_the_program_goes_on() {
    let folder = homes("");
    let port = free_port();
    append(
        &folder,
        GREETER,
        &format!("ataccama.server.grpc.port={port}"),
    );
    let mut child = started(&folder, "serve");
    assert!(printed(&mut child, "is open"));
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }

    signal(&child, "TERM");

    assert!(printed(&mut child, "has served"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn errors_of_the_door_print_well() {
    let folder = homes("");
    append(
        &folder,
        GREETER,
        "countersign.token.leeway=many\ncountersign.nonsense=1",
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async { Module::open(folder.path("greeter")).unwrap_err() });

    // As `fn main() -> Result<(), Box<dyn Error>>` prints it.
    let boxed: Box<dyn Error> = Box::new(error);
    let shown = format!("{boxed:?}");

    assert_eq!(shown, cause(&*boxed));
    assert!(shown.contains("countersign.token.leeway"), "{shown}");
    assert!(
        !shown.contains(['{', '}']) && !shown.contains("Some("),
        "{shown}"
    );
}

const DPM: &str = "dpm/etc/application.properties";

#[tokio::test]
async fn second_strict_process_of_a_home_is_refused_with_the_pid_of_the_first() {
    let folder = paired();
    append(&folder, DPM, "countersign.token.replay=strict\n");
    let first = open(&folder, "dpm");

    let run = folder.run(&format!("dpm run --home dpm {ANY_PORT}"));
    let again = Module::open(folder.path("dpm")).unwrap_err();

    let pid = format!("is in use by process {}", std::process::id());
    let run = run.exits(6);
    assert!(run.stderr.contains(&pid), "{run:?}");
    assert!(format!("{again:?}").contains(&pid), "{again:?}");
    let kept = folder.read("dpm/storage/replay-watermark");
    assert_eq!(kept, "00000000000000000000\n");
    drop(first);
}

#[tokio::test]
async fn strict_module_whose_storage_cannot_be_written_is_refused() {
    let folder = paired();
    append(&folder, DPM, "countersign.token.replay=strict\n");
    folder.write("dpm/storage/replay-watermark/file", "");

    let run = folder.run(&format!("dpm run --home dpm {ANY_PORT}"));
    let opened = Module::open(folder.path("dpm")).unwrap_err();

    let run = run.exits(3);
    for text in [run.stderr, format!("{opened:?}")] {
        assert!(text.contains("replay-watermark"), "{text}");
    }
}

#[test]
fn errors_of_every_public_door_print_as_text_from_main() {
    let (own, peer) = (own_deployment("dpm", "a"), own_deployment("dpe", "b"));
    let ambiguous = Module::builder(own.clone())
        .trust(trusted(&peer))
        .trust(trusted(&peer));
    let module = Module::builder(own).build().unwrap();
    let twice = vec![trusted(&peer), trusted(&peer)];
    let home = tempfile::tempdir().unwrap();
    let _held = Storage::lock(home.path()).unwrap();
    let day = Duration::from_secs(86_400);
    let errors: [Box<dyn Error>; 11] = [
        ambiguous.build().unwrap_err().into(),
        module.deployment_of("dpe").unwrap_err().into(),
        module.trust().load().trusting(twice).unwrap_err().into(),
        Storage::lock(home.path()).unwrap_err().into(),
        Policy::new(2 * day, day, day).unwrap_err().into(),
        Role::new("").unwrap_err().into(),
        DeploymentName::new("a.b").unwrap_err().into(),
        KeyId::new("").unwrap_err().into(),
        "x".parse::<Fingerprint>().unwrap_err().into(),
        PublicJwk::parse("{").unwrap_err().into(),
        KeyMaterial::read(b"x").unwrap_err().into(),
    ];

    for error in errors {
        let printed = format!("{error:?}");

        assert_eq!(printed, cause(&*error));
        assert!(!printed.contains(['{', '(']), "{printed}");
    }
}
