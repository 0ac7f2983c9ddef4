//! Files that change under running modules.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::engine::EngineStatus;
use countersign::grpc::reason_of;
use countersign::identity::Role;
use countersign::jose::{PrivateJwk, PublicJwk};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::registry::AddressBook;
use countersign::testing::own_deployment;
use countersign::trust::OwnDeployment;
use countersign::{Module, Reason};
use countersign::{ModuleKind, ReloadHandle, Reloader, Settings};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Code, Status};
use tower_layer::Layer as _;

use crate::support::echo::{Client, Echo};
use crate::support::http::get;
use crate::support::logs::Logs;
use crate::support::world::{
    RunningDpe, RunningDpm, channel, free_port, fresh_id, registration_of, soon,
};

/// What the file of a module says about one peer.
#[derive(Clone)]
struct Peer {
    of: OwnDeployment,
    revoked: bool,
    roles: &'static str,
}

impl Peer {
    fn of(own: &OwnDeployment) -> Self {
        Self {
            of: own.clone(),
            revoked: false,
            roles: "IMPERSONATION",
        }
    }

    fn revoked(self) -> Self {
        Self {
            revoked: true,
            ..self
        }
    }
}

/// Writes the file of `own`, which trusts `peers`: several of one name are its keys.
fn file(own: &OwnDeployment, peers: &[Peer]) -> String {
    let jwk = PrivateJwk::write(&own.key, &own.key_id);
    let mut text = format!(
        "countersign.deployment.name={}\nataccama.authentication.internal.jwt.generator.key={}\n",
        own.name.as_ref().unwrap(),
        BASE64_STANDARD.encode(jwk.expose())
    );
    let mut named = Vec::new();
    for (n, peer) in peers.iter().enumerate() {
        let name = peer.of.name.as_ref().unwrap();
        let below = format!("ataccama.one.platform.deployments.{name}");
        if !named.contains(name) {
            let (module, roles) = (&peer.of.module, peer.roles);
            writeln!(
                text,
                "{below}.module={module}\n{below}.security.roles={roles}"
            )
            .unwrap();
            named.push(name.clone());
        }
        let key = format!("{below}.security.jwt-keys.key{n}");
        let content = PublicJwk::write(peer.of.key.verifying_key(), &peer.of.key_id);
        let (kid, revoked) = (&peer.of.key_id, peer.revoked);
        writeln!(
            text,
            "{key}.fingerprint={kid}\n{key}.content={content}\n{key}.is-revoked={revoked}"
        )
        .unwrap();
    }
    text
}

/// A module's home whose file is followed.
struct Home {
    folder: TempDir,
    module: Module,
    addresses: AddressBook,
    handle: ReloadHandle,
    following: JoinHandle<()>,
}

impl Home {
    fn start(text: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |path| replace(path, text))
    }

    /// Has `write` make the file, or what leads to it.
    fn start_in(folder: TempDir, write: impl FnOnce(&Path)) -> Self {
        let path = folder.path().join("etc/application.properties");
        fs::create_dir(path.parent().unwrap()).unwrap();
        write(&path);
        let settings = Settings::load(folder.path(), &ModuleKind::Dpm, [], &[]).unwrap();
        let module = settings.module().unwrap();
        let addresses = settings.address_book();
        let reloader = Reloader::with_addresses(&settings, &module, addresses.clone());
        Self {
            folder,
            module,
            addresses,
            handle: reloader.handle(),
            following: tokio::spawn(async move {
                reloader.run().await;
            }),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("etc/application.properties")
    }

    /// Writes the file as an editor does: another one, renamed over it.
    fn now(&self, text: &str) {
        replace(&self.path(), text);
    }

    /// Completes once what was written is applied, within the two seconds.
    async fn applied(&self) {
        let mut status = self.handle.status();
        let began = Instant::now();
        soon("a reload", status.changed()).await.unwrap();
        let status = status.borrow().clone();
        assert_eq!(status.failure, None);
        assert!(status.succeeded_at.is_some());
        assert!(began.elapsed() < TWO_SECONDS, "{:?}", began.elapsed());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.following.abort();
    }
}

const TWO_SECONDS: Duration = Duration::from_secs(2);

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    private(&beside);
    fs::rename(&beside, path).unwrap();
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Asks `callee` who `caller` is.
async fn who_am_i(caller: &Module, address: std::net::SocketAddr) -> Result<String, Status> {
    let layer = caller
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = IdentityServiceClient::new(layer.layer(channel(address).await));
    let answer = client.who_am_i(WhoAmIRequest {}).await?.into_inner();
    Ok(answer.fingerprint)
}

fn pair() -> (OwnDeployment, OwnDeployment) {
    (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    )
}

fn peer_module(own: &OwnDeployment, dpm: &OwnDeployment) -> Module {
    crate::support::world::module(own, &[dpm])
}

#[tokio::test]
async fn key_that_is_added_is_accepted_and_one_that_is_removed_is_not() {
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[]));
    let running = RunningDpm::start(home.module.clone()).await;
    let caller = peer_module(&dpe, &dpm);
    let refused = who_am_i(&caller, running.address).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::KeyUnknown));

    home.now(&file(&dpm, &[Peer::of(&dpe)]));
    home.applied().await;
    let seen = who_am_i(&caller, running.address).await.unwrap();
    assert_eq!(seen, dpe.key_id.as_str());

    home.now(&file(&dpm, &[]));
    home.applied().await;
    let refused = who_am_i(&caller, running.address).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::KeyUnknown));
    running.stop().await;
}

#[tokio::test]
async fn series_of_a_deployment_come_and_go_with_it() {
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[]));
    let running = RunningDpm::start(home.module.clone()).await;
    let series = async || {
        let scraped = get(running.http, "/actuator/prometheus").await.body;
        let lines = scraped.lines().filter(|line| !line.starts_with('#'));
        let of_it = lines.filter(|line| line.contains("\"dpe-dev\"") || line.contains("\"dpe\""));
        of_it.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(series().await, [""; 0]);

    home.now(&file(&dpm, &[Peer::of(&dpe)]));
    home.applied().await;
    let added = series().await;
    let issued = r#"countersign_tokens_issued_total{audience="dpe-dev"} 0"#;
    assert!(added.iter().any(|line| line == issued), "{added:#?}");

    home.now(&file(&dpm, &[]));
    home.applied().await;
    assert_eq!(series().await, [""; 0]);
    running.stop().await;
}

#[tokio::test]
async fn revocation_ends_calls_streams_and_the_engine_within_two_seconds() {
    let mut logs = Logs::start();
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[Peer::of(&dpe)]));
    let running = RunningDpm::start(home.module.clone()).await;
    let caller = peer_module(&dpe, &dpm);
    let engine = RunningDpe::start(caller.clone(), running.address);
    running.engine_is(engine.id, EngineStatus::Ready).await;
    let echo = Echo::serve(&home.module).await;
    let layer = caller
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(channel(echo).await));
    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    send.send("one".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");

    let began = Instant::now();
    home.now(&file(&dpm, &[Peer::of(&dpe).revoked()]));
    let ended = soon("the stream's end", replies.message())
        .await
        .unwrap_err();
    running
        .engine_is(engine.id, EngineStatus::Disconnected)
        .await;
    let refused = who_am_i(&caller, running.address).await.unwrap_err();
    let took = began.elapsed();

    assert_eq!(reason_of(&ended), Some(Reason::KeyRevoked));
    assert_eq!(reason_of(&refused), Some(Reason::KeyRevoked));
    assert!(took < TWO_SECONDS, "{took:?}");
    running
        .reason(engine.id, "every key of `dpe-dev` is revoked")
        .await;
    let line = logs
        .line(&["configReloaded", "dpe-dev trusted → revoked"])
        .await;
    assert!(line.contains(dpe.key_id.as_str()), "{line}");
    engine.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn engine_of_a_deployment_that_is_removed_leaves_ready_and_comes_back_with_it() {
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[Peer::of(&dpe)]));
    let running = RunningDpm::start(home.module.clone()).await;
    let engine = RunningDpe::start(peer_module(&dpe, &dpm), running.address);
    running.engine_is(engine.id, EngineStatus::Ready).await;

    home.now(&file(&dpm, &[]));
    running
        .reason(engine.id, "`dpe-dev` is not trusted here")
        .await;
    running
        .engine_is(engine.id, EngineStatus::Disconnected)
        .await;
    home.now(&file(&dpm, &[Peer::of(&dpe)]));

    running.engine_is(engine.id, EngineStatus::Ready).await;
    engine.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn engine_whose_own_key_is_revoked_leaves_ready_though_its_deployment_has_another() {
    let (dpm, dpe) = pair();
    let other = own_deployment("dpe", "dpe-dev");
    let home = Home::start(&file(&dpm, &[Peer::of(&dpe), Peer::of(&other)]));
    let running = RunningDpm::start(home.module.clone()).await;
    let engine = RunningDpe::start(peer_module(&dpe, &dpm), running.address);
    running.engine_is(engine.id, EngineStatus::Ready).await;

    home.now(&file(&dpm, &[Peer::of(&dpe).revoked(), Peer::of(&other)]));

    running
        .engine_is(engine.id, EngineStatus::Disconnected)
        .await;
    running.reason(engine.id, "KEY_REVOKED").await;
    engine.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn role_that_is_taken_away_is_missing_at_the_next_call() {
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[Peer::of(&dpe)]));
    let running = RunningDpm::start(home.module.clone()).await;
    let mut client = running.client(&peer_module(&dpe, &dpm)).await;
    let address = free_port().await.local_addr().unwrap();
    client
        .register_engine(registration_of(fresh_id(), address))
        .await
        .unwrap();

    let roles = "READER";
    home.now(&file(
        &dpm,
        &[Peer {
            roles,
            ..Peer::of(&dpe)
        }],
    ));
    home.applied().await;

    let refused = client
        .register_engine(registration_of(fresh_id(), address))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
    running.stop().await;
}

#[tokio::test]
async fn own_key_that_is_swapped_signs_the_next_call_and_no_call_is_lost() {
    let (dpm, old) = pair();
    let new = own_deployment("dpe", "dpe-dev");
    let callee = crate::support::world::module(&dpm, &[]);
    let both = [&old, &new].map(|own| {
        let mut deployment = countersign::testing::trusted(own);
        deployment.keys[0].name = own.key_id.to_string();
        deployment
    });
    let mut deployment = both[0].clone();
    deployment.keys.extend(both[1].keys.clone());
    crate::support::world::now_trusts(&callee, vec![deployment]);
    let running = RunningDpm::start(callee).await;
    let home = Home::start(&file(&old, &[Peer::of(&dpm)]));
    let engine = RunningDpe::start(home.module.clone(), running.address);
    running.engine_is(engine.id, EngineStatus::Ready).await;
    assert_eq!(
        who_am_i(&home.module, running.address).await.unwrap(),
        old.key_id.as_str()
    );

    home.now(&file(&new, &[Peer::of(&dpm)]));
    let mut status = home.handle.status();
    let mut calls = 0;
    while !status.has_changed().unwrap() {
        who_am_i(&home.module, running.address).await.unwrap();
        calls += 1;
    }

    assert!(calls > 0);
    assert_eq!(status.borrow_and_update().failure, None);
    assert_eq!(
        who_am_i(&home.module, running.address).await.unwrap(),
        new.key_id.as_str()
    );
    // The engine's old dial-back is addressed to the old key, which still is one of its own.
    let swapped = home.module.clock().now();
    running.engine_seen_after(engine.id, swapped).await;
    running.engine_is(engine.id, EngineStatus::Ready).await;
    engine.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn every_way_to_write_a_file_is_noticed() {
    let (dpm, dpe) = pair();
    let (without, with) = (file(&dpm, &[]), file(&dpm, &[Peer::of(&dpe)]));
    let home = Home::start(&without);
    let path = home.path();
    let trusts = || home.module.trust().load().deployment("dpe-dev").is_some();

    fs::write(&path, &with).unwrap();
    home.applied().await;
    assert!(trusts());
    replace(&path, &without);
    home.applied().await;
    assert!(!trusts());
    // The same length, and the times of the file before, as `cp -p` leaves them.
    replace(&path, &with);
    home.applied().await;
    let about = fs::metadata(&path).unwrap();
    let same_length = with.replace("IMPERSONATION", "IMPERSONATING");
    fs::write(&path, &same_length).unwrap();
    let written = fs::File::options().write(true).open(&path).unwrap();
    written.set_modified(about.modified().unwrap()).unwrap();
    home.applied().await;
    let trusted = home.module.trust().load();
    let roles = &trusted.deployment("dpe-dev").unwrap().roles;
    assert!(
        roles.contains(&Role::new("IMPERSONATING").unwrap()),
        "{roles:?}"
    );
}

#[tokio::test]
async fn swap_of_a_link_on_the_way_to_the_file_is_noticed() {
    use std::os::unix::fs::symlink;

    let (dpm, dpe) = pair();
    let mounted = tempfile::tempdir().unwrap();
    // As the kubelet lays a secret out: the file leads through `..data` to a folder of one version.
    for (version, peers) in [("..1", vec![]), ("..2", vec![Peer::of(&dpe)])] {
        let folder = mounted.path().join(version);
        fs::create_dir(&folder).unwrap();
        replace(&folder.join("application.properties"), &file(&dpm, &peers));
    }
    let data = mounted.path().join("..data");
    symlink("..1", &data).unwrap();
    let file = mounted.path().join("application.properties");
    symlink("..data/application.properties", &file).unwrap();
    let home = Home::start_in(tempfile::tempdir().unwrap(), |path| {
        symlink(&file, path).unwrap();
    });

    let next = mounted.path().join("..data_tmp");
    symlink("..2", &next).unwrap();
    fs::rename(&next, &data).unwrap();
    home.applied().await;

    assert!(home.module.trust().load().deployment("dpe-dev").is_some());
}

#[tokio::test]
async fn file_with_an_error_keeps_the_old_state_and_is_reported_once() {
    let mut logs = Logs::start();
    let (dpm, dpe) = pair();
    let home = Home::start(&file(&dpm, &[Peer::of(&dpe)]));
    let running = RunningDpm::start(home.module.clone()).await;
    let caller = peer_module(&dpe, &dpm);
    let mut status = home.handle.status();

    let good = file(&dpm, &[]);
    home.now(&format!("{good}countersign.nonsense=1\n"));
    soon("a failure", status.changed()).await.unwrap();
    let failure = status.borrow_and_update().failure.clone().unwrap();

    assert!(
        failure.contains("CS0106") && failure.contains("countersign.nonsense"),
        "{failure}"
    );
    let line = logs.line(&["configReloadFailed", "CS0106"]).await;
    assert!(line.contains("application.properties:3:1"), "{line}");
    who_am_i(&caller, running.address).await.unwrap();
    let health = home.module.health().current();
    let part = health
        .parts()
        .iter()
        .find(|part| part.name == "configReload");
    assert!(part.is_some_and(|part| !part.up && part.detail.contains("CS0106")));
    let metric = "countersign_config_last_reload_successful";
    assert!(home.module.metrics_text().contains(&format!("{metric} 0")));

    // The same again is no news; being asked is.
    home.now(&format!("{good}countersign.nonsense=1\n"));
    home.handle.reload();
    soon("an answer", status.changed()).await.unwrap();
    home.now(&good);
    soon("a success", status.changed()).await.unwrap();
    assert_eq!(status.borrow_and_update().failure, None);
    logs.line(&["configReloaded", "deployment dpe-dev removed"])
        .await;
    assert!(logs.count("configReloadFailed") <= 2);
    let text = home.module.metrics_text();
    assert!(text.contains(&format!("{metric} 1")), "{text}");
    running.stop().await;
}

#[tokio::test]
async fn file_that_grows_by_a_byte_at_a_time_is_never_applied_by_half() {
    let (dpm, dpe) = pair();
    let revoked = file(&dpm, &[Peer::of(&dpe).revoked()]);
    let home = Home::start(&revoked);
    let path = home.path();
    let trust = home.module.trust();

    // Without a pause that would let a part of it settle.
    let mut changes = trust.subscribe();
    let later = revoked.replace("roles=IMPERSONATION", "roles=ADMIN");
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;

        let mut file = fs::File::create(&path).unwrap();
        for byte in later.as_bytes() {
            file.write_all(&[*byte]).unwrap();
        }
    });
    soon("the whole file", changes.changed()).await.unwrap();

    writer.join().unwrap();
    let now = trust.load();
    let roles = &now.deployment("dpe-dev").unwrap().roles;
    assert!(roles.contains(&Role::new("ADMIN").unwrap()), "{roles:?}");
    assert!(now.find(dpe.key_id.as_str()).unwrap().key.revoked);
}

#[tokio::test(start_paused = true)]
async fn reload_that_is_switched_off_waits_to_be_asked() {
    let (dpm, dpe) = pair();
    let off = |peers: &[Peer]| file(&dpm, peers) + "countersign.reload=false\n";
    let home = Home::start(&off(&[]));

    home.now(&off(&[Peer::of(&dpe)]));
    let mut status = home.handle.status();
    let waited = tokio::time::timeout(Duration::from_secs(10), status.changed()).await;
    assert!(waited.is_err());
    assert!(home.module.trust().load().deployment("dpe-dev").is_none());
    home.handle.reload();
    home.applied().await;

    assert!(home.module.trust().load().deployment("dpe-dev").is_some());
}

#[tokio::test]
async fn addresses_that_are_no_longer_allowed_end_the_dial_back() {
    let (dpm, dpe) = pair();
    let allow = |network: &str| {
        let rule = "countersign.deployments.dpe-dev.allowed-addresses";
        file(&dpm, &[Peer::of(&dpe)]) + &format!("{rule}={network}\n")
    };
    let home = Home::start(&allow("localhost"));
    let addresses = home.addresses.clone();
    let listener = free_port().await;
    let running = RunningDpm::start_with(home.module.clone(), listener, |options| {
        options.addresses = addresses;
    });
    let engine = RunningDpe::start(peer_module(&dpe, &dpm), running.address);
    running.engine_is(engine.id, EngineStatus::Ready).await;

    home.now(&allow("192.0.2.0/24"));

    running
        .engine_is(engine.id, EngineStatus::Disconnected)
        .await;
    running.reason(engine.id, "ADDRESS_NOT_ALLOWED").await;
    home.now(&allow("localhost"));
    running.engine_is(engine.id, EngineStatus::Ready).await;
    engine.stop().await;
    running.stop().await;
}
