//! Layer 10, seen from both ends: does the DPM reach its engines? A DPM examines itself and each
//! engine; an engine examines its DPM.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::layers::{self, compare_clocks, grant_role};
use super::peer::{Doctor, Peer};
use super::refusals::{duplicate, refuses};
use super::report::{Help, Layer, Live, Row, Side, Visitor};
use super::roster::{MOST_VISITED, Roster, address_of, is_active, is_one_way};
use crate::admin::error::{Kind, Refused};
use crate::admin::greeting::{Registry, is_listening, list_engines};
use crate::admin::rejection::{REGISTER_REFUSED, Rejection, newest};
use crate::diagnostic::CommandLine;
use crate::dpe::stored_engine_id;
use crate::engine::FailureKind;
use crate::grpc::{self, call, cause};
use crate::identity::DeploymentName;
use crate::properties::name::{Pattern, same};
use crate::proto::convert::status_word;
use crate::proto::engine::CheckStatusRequest;
use crate::proto::engine::engine_service_client::EngineServiceClient;
use crate::proto::registry::{Engine, EngineStatus, GetEngineRequest};
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

/// No connection or engine has that name.
pub(super) fn no_such_peer(name: &str) -> Refused {
    let message = format!("no connection or engine `{name}` is known");
    Refused::new(Kind::Usage, message)
}

/// Visits the running DPM, which is `peer`, then its engines, as the dial-back does.
pub(super) async fn visits(peer: &Peer<'_>, live: &Live<'_>) -> Result<(), Refused> {
    let doctor = peer.doctor;
    let wanted = doctor.options.peer.as_deref();
    let mut known = None;
    let title = format!("{} itself at {}", peer.name, peer.target);
    let own = live.visit(title, async |visit| {
        let engines = list(visit, peer).await?;
        let trusted = doctor.settings.deployments.iter();
        let dpes = trusted.filter(|deployment| deployment.module.as_str() == "dpe");
        let names = dpes.map(|deployment| deployment.name.to_string());
        let roster = known.insert(Roster::new(engines, names.collect()));
        let detail = roster.detail(wanted);
        if roster.lacks(wanted) {
            refuses(peer, &detail)?;
            let engine = doctor.remedy_of_engine();
            let [run, more] = ["countersign dpe run", "countersign doctor"]
                .map(|verb| engine.at_peer(|home| CommandLine::new(verb).option("home", home)));
            // Those that are registered are visited whatever is missing.
            return Err(Row::fail(Layer::WayBack, Side::Peer, detail)
                .help(run.after("start the engine"))
                .help(more.after("for more")));
        }
        visit.add(Row::skip(Layer::WayBack, detail));
        Ok(())
    });
    own.await;
    let Some(roster) = known else {
        return Ok(());
    };
    let engines = roster.wanted(wanted).take(MOST_VISITED);
    let visits = all(engines.map(|engine| of_engine(engine, doctor, live))).await;
    match wanted.filter(|_| visits == 0 && !roster.lacks(wanted)) {
        Some(name) if ![&*peer.name, "dpm"].iter().any(|own| same(own, name)) => {
            Err(no_such_peer(name))
        }
        Some(_) | None => Ok(()),
    }
}

/// Carries out all `visits` at once, begun in their order; returns how many they are.
async fn all(visits: impl Iterator<Item = impl Future<Output = ()>>) -> usize {
    let mut open: Vec<_> = visits.map(Box::pin).collect();
    let count = open.len();
    poll_fn(|context| {
        open.retain_mut(|visit| visit.as_mut().poll(context).is_pending());
        if open.is_empty() {
            Poll::Ready(count)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Asks the running DPM for its engines.
async fn list(visit: &mut Visitor<'_>, peer: &Peer<'_>) -> Result<Vec<Engine>, Row> {
    if peer.target.port() == 0 {
        let detail = "this DPM's port changes at each start";
        return Err(Row::fail(Layer::Name, Side::Here, detail)
            .help("use the port in its log: --set ataccama.server.grpc.port=PORT"));
    }
    let (channel, _) = layers::acquaint(visit, peer).await?;
    let no_role = "a module needs no role to ask itself";
    visit.add(Row::skip(Layer::Role, no_role));
    let why = match timeout(peer.limit(), list_engines(channel)).await {
        Ok(Ok(engines)) => return Ok(engines),
        Ok(Err(status)) => Untrusted(status.message()).to_string(),
        Err(_late) => "no answer in time".to_owned(),
    };
    let detail = format!("the engines cannot be listed: {why}");
    Err(Row::fail(Layer::WayBack, Side::Here, detail))
}

async fn of_engine(engine: &Engine, doctor: &Doctor<'_>, live: &Live<'_>) {
    let status = match engine.status() {
        EngineStatus::Ready => String::new(),
        _ => format!(", {}", status_word(engine.status)),
    };
    let (id, owner) = (Untrusted(&engine.id), Untrusted(&engine.deployment));
    let title = format!("engine {id} of {owner} at {}{status}", address_of(engine));
    let examined = live.visit(title, async |visit| {
        if let Some(row) = not_trusted(engine, doctor) {
            let detail = "an engine of an untrusted owner is not dialled";
            skip_until(row.layer, visit, detail);
            return Err(row);
        }
        let layer = Layer::Name;
        // The registry knows from where the engine registered, and has the last word.
        if failure_of(engine) == Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) {
            let reason = UntrustedReason(&engine.status_reason).to_string();
            let file = doctor.settings.home.file.display().to_string();
            let row = Row::fail(layer, Side::Here, reason);
            return Err(not_allowed(row, &engine.deployment, &file));
        }
        let peer = doctor.engine(engine).map_err(|row| Row { layer, ..row })?;
        if is_one_way(engine) {
            let detail = "a one-way engine is not dialled: it holds a stream to its DPM";
            skip_until(Layer::WayBack, visit, detail);
            visit.add(seen(engine, &peer)?);
            return Ok(());
        }
        dial(visit, &peer, engine).await
    });
    examined.await;
}

/// Leaves out all layers before `end`.
fn skip_until(end: Layer, visit: &mut Visitor<'_>, detail: &str) {
    let layers = Layer::ALL.into_iter().map(|(layer, _)| layer);
    for layer in layers.filter(|layer| (Layer::Name..end).contains(layer)) {
        visit.add(Row::skip(layer, detail));
    }
}

/// Says that the engine's deployment is not trusted.
fn not_trusted(engine: &Engine, doctor: &Doctor<'_>) -> Option<Row> {
    let owner = DeploymentName::new(&engine.deployment).ok()?;
    let unknown = doctor.module.layer_for(owner.as_str()).err()?;
    let settings = doctor.settings;
    let file = settings.home.file.display();
    let words = CommandLine::new("countersign deployment add").arg(owner.as_str());
    let add = words
        .option("home", &settings.home.file)
        .option("module", "dpe");
    let row = Row::fail(Layer::Token, Side::Here, format!("{unknown} in {file}"))
        .helps(doctor.remedy_of_engine().pair(false))
        .help("or, if you only have its public key, in `dpe-public.jwk`:")
        .help(add.option("public-key", "dpe-public.jwk"));
    Some(row)
}

async fn dial(visit: &mut Visitor<'_>, peer: &Peer<'_>, engine: &Engine) -> Result<(), Row> {
    let (channel, _) = layers::acquaint(visit, peer).await?;
    let mut client = EngineServiceClient::new(channel).max_decoding_message_size(64 * 1024);
    let (limit, question) = (peer.limit(), CheckStatusRequest {});
    let asked = call(limit, question, |request| client.check_status(request)).await;
    let answer = visit.found(layers::role(peer, asked)?);
    if answer.engine_id != engine.id {
        let detail = format!("engine {} answers there", Untrusted(&answer.engine_id));
        return Err(Row::fail(Layer::WayBack, Side::Peer, detail).help(&*peer.remedy.host));
    }
    visit.add(seen(engine, peer)?);
    Ok(())
}

/// Visits a module that this one calls: its DPM, or another one. Returns `true` if it is there; if
/// not, that is a warning for one that `may_be_away`.
pub(super) async fn visit(peer: &Peer<'_>, live: &Live<'_>, may_be_away: bool) -> bool {
    let title = format!("{} at {}", peer.name, peer.target);
    let mut is_there = true;
    let examined = live.visit(title, async |visit| {
        examine(visit, peer).await.map_err(|failed| {
            is_there = failed.layer > Layer::Tcp;
            if may_be_away && !is_there {
                failed.warning()
            } else {
                failed
            }
        })
    });
    examined.await;
    is_there
}

async fn examine(visit: &mut Visitor<'_>, peer: &Peer<'_>) -> Result<(), Row> {
    let (channel, roles) = layers::acquaint(visit, peer).await?;
    let settings = peer.doctor.settings;
    let registry = settings.options.client.connection("dpm");
    if registry.is_none_or(|dpm| dpm.targets().all(|target| *target != peer.target)) {
        visit.add(Row::skip(Layer::Role, format!("roles there: [{roles}]")));
        visit.add(Row::skip(Layer::WayBack, "only a DPM dials back"));
        return Ok(());
    }
    let id = stored_engine_id(&settings.home.storage());
    let known = id.as_ref().ok().copied().flatten().map(|id| id.to_string());
    let mut client = Registry::new(channel);
    let answer = record(peer, &mut client, known.as_deref().unwrap_or(NO_ENGINE)).await;
    let record = visit.found(layers::role(peer, answer)?);
    let stored = id.map_err(|error| fail(Side::Here, cause(&error)))?;
    if stored.is_none() {
        let detail = "the engine does not run and was never started";
        return Err(not_running(peer, detail));
    }
    let record = registered(record, peer)?;
    if let Some(row) = duplicate(peer) {
        return Err(row);
    }
    let Some(engine) = record else {
        return Err(not_held(peer).await);
    };
    let engine = checked(engine, peer, &mut client).await;
    // A port that is not its file's was set when it was started, or is forwarded.
    let port = engine.address.as_ref().map(|address| address.port);
    if port == Some(settings.options.server.port.into())
        && !is_one_way(&engine)
        && matches!(failure_of(&engine), Some((FailureKind::NotReached, _)))
        && !listens(peer).await
    {
        let name = &peer.name;
        let detail = format!("the engine does not run; {name} has not noticed that yet");
        return Err(not_running(peer, detail));
    }
    visit.add(seen(&engine, peer)?);
    Ok(())
}

fn fail(side: Side, detail: impl Into<String>) -> Row {
    Row::fail(Layer::WayBack, side, detail)
}

fn not_running(peer: &Peer<'_>, detail: impl Into<String>) -> Row {
    let run = CommandLine::new("countersign dpe run").option("home", &peer.doctor.options.home);
    fail(Side::Here, detail).help(Help::new("start it with:", run))
}

/// An id that no engine makes: asking for it needs the role, and changes nothing.
const NO_ENGINE: &str = "00000000-0000-0000-0000-000000000000";

/// Asks the registry for its record of the engine `id`.
async fn record(
    peer: &Peer<'_>,
    client: &mut Registry,
    id: &str,
) -> Result<Option<Engine>, Status> {
    let engine_id = id.to_owned();
    let question = GetEngineRequest { engine_id };
    match call(peer.limit(), question, |request| client.get_engine(request)).await {
        Ok(answer) => Ok(answer.engine),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Returns the engine if it is registered.
///
/// Fails if it is not this module's: its id may have been copied with its folder.
fn registered(record: Option<Engine>, peer: &Peer<'_>) -> Result<Option<Engine>, Row> {
    // Without a name of its own, only the DPM knows what it calls this module.
    let own = peer.doctor.module.own();
    let named = own.name.as_ref().map(DeploymentName::as_str);
    match record {
        Some(engine) if named.is_some_and(|name| name != engine.deployment) => {
            let (id, owner) = (Untrusted(&engine.id), Untrusted(&engine.deployment));
            let name = &peer.name;
            let detail = format!("ENGINE_NOT_OWNED: at {name} engine {id} belongs to {owner}");
            Err(fail(Side::Here, detail).help(Reason::EngineNotOwned.explain()))
        }
        found => Ok(found.filter(is_active)),
    }
}

/// Returns why the DPM has not registered the engine: it does not run, or its log has the reason.
async fn not_held(peer: &Peer<'_>) -> Row {
    let (settings, name) = (peer.doctor.settings, &peer.name);
    if !listens(peer).await {
        let detail = match settings.options.server.port {
            0 => "the engine is not registered at the DPM and uses a free port: it may not run",
            _ => "the engine does not run",
        };
        return not_running(peer, detail);
    }
    let log = &settings.home.dir.join("log");
    let refused = newest(log, &[REGISTER_REFUSED]).ok().flatten();
    let reason = refused.as_ref().and_then(Rejection::reason);
    let why = refused.as_ref().and_then(|line| line.text("detail"));
    let mut detail = format!("the engine runs, but {name} has not registered it");
    for part in [reason.map(Reason::as_str), why].into_iter().flatten() {
        detail.extend([": ", &UntrustedReason(part).to_string()]);
    }
    if reason == Some(Reason::AddressNotAllowed) {
        let (row, own) = (fail(Side::Peer, detail), peer.doctor.module.own());
        return not_allowed(row, own.issuer(), &format!("the file of {name}"));
    }
    fail(Side::Here, detail).help(format!("its log says why: {}", log.display()))
}

/// Waits while an engine that has just registered is dialled back for the first time.
async fn checked(mut engine: Engine, peer: &Peer<'_>, client: &mut Registry) -> Engine {
    let end = Instant::now() + peer.limit();
    while engine.status() == EngineStatus::New
        && engine.status_reason.is_empty()
        && Instant::now() < end
    {
        sleep(Duration::from_millis(50)).await;
        let Ok(Some(newer)) = record(peer, client, &engine.id).await else {
            break;
        };
        engine = newer;
    }
    engine
}

/// Returns `true` if something listens where this engine would.
async fn listens(peer: &Peer<'_>) -> bool {
    let options = &peer.doctor.settings.options;
    let served = if options.engine.one_way {
        options.server.http()
    } else {
        options.server.listener()
    };
    match served {
        Some(own) => is_listening(&own, peer.limit()).await,
        None => false,
    }
}

/// Says how the DPM sees `engine`, and what to do if that is not READY.
///
/// `peer` is the other one of the two, as the module that is examined sees it. What to do follows
/// only from the DPM's own values: a peer may have chosen the text.
fn seen(engine: &Engine, peer: &Peer<'_>) -> Result<Row, Row> {
    let own = peer.doctor.module.own();
    let here = (own.issuer(), Side::Here, peer.remedy.own_file());
    let their_file = format!("the file of {}", peer.name);
    let there = (peer.name.as_str(), Side::Peer, their_file);
    let ((dpm, registry, registry_file), (_, caller, caller_file)) = match own.module.as_str() {
        "dpm" => (here, there),
        _ => (there, here),
    };
    let (status, owner) = (status_word(engine.status), engine.deployment.as_str());
    let arrow = if is_one_way(engine) { "←" } else { "→" };
    let way = format!("{dpm} {arrow} {}, {status}", address_of(engine));
    if engine.status() == EngineStatus::Ready {
        return Ok(Row::ok(Layer::WayBack, way));
    }
    let reason = match engine.status_reason.as_str() {
        "" => "the DPM has not dialled back yet".to_owned(),
        reason => UntrustedReason(reason).to_string(),
    };
    let (between, detail) = (Side::Between, format!("{way}: {reason}"));
    Err(match failure_of(engine) {
        Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) => {
            not_allowed(fail(registry, detail), owner, &registry_file)
        }
        Some((FailureKind::NotDialled, Some(Reason::RoleMissing))) => {
            grant_role(fail(registry, detail).refused(), peer, &registry_file, owner)
        }
        Some((FailureKind::Refused, Some(Reason::RoleMissing))) => {
            grant_role(fail(caller, detail).refused(), peer, &caller_file, dpm)
        }
        Some((FailureKind::ClocksDiffer, _)) => compare_clocks(fail(between, detail), &peer.name),
        Some((_, Some(reason))) => fail(between, detail)
            .refused()
            .help(reason.explain())
            .helps(peer.remedy.check()),
        Some((FailureKind::NotDialled, None)) => fail(registry, detail).helps(peer.remedy.check()),
        Some((FailureKind::NotReached, None)) if is_one_way(engine) => fail(between, detail)
            .help(peer.doctor.remedy_of_engine().start().after("does the engine run?")),
        Some((FailureKind::NotReached, None)) => fail(between, detail)
            .helps(loopback_only(peer))
            .help(peer.doctor.remedy_of_engine().start().after("does the engine run?"))
            .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port`; the DPM's host must reach it there"),
        None
        | Some((
            FailureKind::TimedOut
            | FailureKind::ConnectionLost
            | FailureKind::NoEngine
            | FailureKind::OtherEngine
            | FailureKind::Refused
            | FailureKind::NotProved,
            None,
        )) => fail(between, detail).help(
            "run doctor again after the DPM has dialled it again; the DPM logs the result at `engineCheckFailed`",
        ),
    })
}

/// Says of an engine that is examined that it listens for this host alone.
fn loopback_only(peer: &Peer<'_>) -> Option<String> {
    let settings = peer.doctor.settings;
    let is_so =
        settings.own.module.as_str() != "dpm" && settings.options.server.address.is_loopback();
    let file = peer.remedy.own_file();
    is_so.then(|| {
        format!(
            "it listens on loopback only: `countersign.server.address` in {file}; for a DPM on \
             another host, pair with `countersign pair --address`"
        )
    })
}

/// Returns why the last dial-back to `engine` failed, as [`grpc::failure_of`](crate::grpc) does.
fn failure_of(engine: &Engine) -> Option<(FailureKind, Option<Reason>)> {
    grpc::failure_of(engine.dial_back_failure.as_ref()?)
}

const ALLOWED: &str = "countersign.deployments.<name>.allowed-addresses";

/// Says that a DPM, in whose `file` `row` is to be fixed, dials the engines of `owner` only
/// elsewhere.
fn not_allowed(row: Row, owner: &str, file: &str) -> Row {
    let allowed = Pattern::new(ALLOWED).with_keys(&[owner.to_owned()]);
    row.refused()
        .help(format!("{file} says where it may be dialled: `{allowed}`"))
        .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port` in its file")
        .help(Reason::AddressNotAllowed.explain())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::super::peer::Options;
    use super::*;
    use crate::admin::pairing::{self, Member};
    use crate::config::{ModuleKind, Settings};
    use crate::identity::ModuleType;
    use crate::proto::registry as wire;

    /// Pairs a DPM and a DPE, whose homes are in `folder`.
    fn pair(folder: &Path) {
        let members = ["dpm", "dpe"].map(|module| {
            let path = folder.join(module).join("etc/application.properties");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            Member::new(ModuleType::new(module).unwrap(), path)
        });
        let plan = pairing::plan(&members, None, &pairing::Options::default()).unwrap();
        plan.change.carry_out().unwrap();
    }

    /// How the DPM, or else the engine, sees an engine whose dial-back failed. The file of the one
    /// that is examined is called `here.properties`.
    fn row(kind: FailureKind, reason: Option<Reason>, is_dpm: bool) -> Row {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path());
        let (name, module) = if is_dpm {
            ("dpm", ModuleKind::Dpm)
        } else {
            ("dpe", ModuleKind::Dpe)
        };
        let home = folder.path().join(name);
        let settings = Settings::load(&home, &module, [], &[]).unwrap();
        let options = Options {
            home,
            peer: None,
            timeout: Duration::from_secs(1),
        };
        let doctor = Doctor {
            settings: &settings,
            module: settings.module().unwrap(),
            options: &options,
        };
        let failure = wire::DialBackFailure {
            kind: kind as i32,
            reason: reason.map_or_else(String::new, |reason| reason.to_string()),
            detail: "ADDRESS_NOT_ALLOWED: x; its clock is 9 s".to_owned(),
        };
        let engine = Engine {
            status_reason: format!("{}: ADDRESS_NOT_ALLOWED: x", kind.as_str()),
            dial_back_failure: Some(failure),
            deployment: "dpe-dev".to_owned(),
            address: Some(wire::EngineAddress {
                hostname: "localhost".to_owned(),
                port: 1,
            }),
            ..Engine::default()
        };
        let peer = if is_dpm {
            doctor.engine(&engine)
        } else {
            let dpm = settings.options.client.connection("dpm").unwrap();
            doctor.to(dpm, &dpm.target)
        };
        let mut row = seen(&engine, &peer.unwrap()).unwrap_err();
        let file = settings.home.file.display().to_string();
        for help in &mut row.help {
            *help = help.to_string().replace(&file, "here.properties").into();
        }
        row
    }

    fn in_words(row: &Row) -> String {
        let help: Vec<_> = row.help.iter().map(ToString::to_string).collect();
        help.join("; ")
    }

    #[test]
    fn only_what_the_dpm_itself_says_of_an_address_is_fixed_in_its_file() {
        for (kind, reason, is_meant) in [
            (FailureKind::NotDialled, Reason::AddressNotAllowed, true),
            (FailureKind::NotProved, Reason::ProofInvalid, false),
            (FailureKind::NotDialled, Reason::RoleMissing, false),
        ] {
            for (is_dpm, side) in [(false, Side::Peer), (true, Side::Here)] {
                let row = row(kind, Some(reason), is_dpm);

                let help = in_words(&row);
                assert_eq!(help.contains("allowed-addresses"), is_meant, "{help}");
                assert!(!is_meant || row.side == Some(side), "{reason}");
            }
        }
    }

    #[test]
    fn role_that_is_missing_is_written_where_it_is_missing() {
        let (here, there) = (FailureKind::NotDialled, FailureKind::Refused);
        for (kind, is_dpm, side, file, of) in [
            (here, true, Side::Here, "here.properties", "dpe-dev"),
            (here, false, Side::Peer, "the file of dpm-dev", "dpe-dev"),
            (there, false, Side::Here, "here.properties", "dpm-dev"),
            (there, true, Side::Peer, "the file of dpe-dev", "dpm-dev"),
        ] {
            let row = row(kind, Some(Reason::RoleMissing), is_dpm);

            let line = format!("ataccama.one.platform.deployments.{of}.security.roles[0]");
            let help = format!("write into {file}: {line}=IMPERSONATION");
            assert_eq!((row.side, in_words(&row)), (Some(side), help));
            assert!(row.refused);
        }
    }

    #[test]
    fn clocks_are_compared_only_where_the_dpm_measured_them() {
        for (kind, is_meant) in [
            (FailureKind::ClocksDiffer, true),
            (FailureKind::NotProved, false),
        ] {
            let help = in_words(&row(kind, Some(Reason::ProofInvalid), false));

            assert_eq!(help.contains("date -u"), is_meant, "{help}");
        }
    }

    #[test]
    fn engine_that_cannot_be_reached_is_to_be_started_or_to_advertise_another_address() {
        let help = in_words(&row(FailureKind::NotReached, None, false));

        assert!(help.contains("dpe run"), "{help}");
        assert!(help.contains("service.hostname"), "{help}");
    }

    #[tokio::test]
    async fn frozen_engines_are_all_asked_before_one_of_them_answers() {
        const FROZEN: usize = 30;
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path());
        let home = folder.path().join("dpm");
        let settings = Settings::load(&home, &ModuleKind::Dpm, [], &[]).unwrap();
        let options = Options {
            home,
            peer: None,
            timeout: Duration::from_secs(300),
        };
        let doctor = Doctor {
            settings: &settings,
            module: settings.module().unwrap(),
            options: &options,
        };
        // Each accepts a connection, and keeps silent until all have one.
        let reached = Arc::new(Barrier::new(FROZEN));
        let mut engines = Vec::new();
        for id in 0..FROZEN {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut engine = engine(id, EngineStatus::Ready);
            engine.address = Some(wire::EngineAddress {
                hostname: "127.0.0.1".to_owned(),
                port: listener.local_addr().unwrap().port().into(),
            });
            engines.push(engine);
            let reached = Arc::clone(&reached);
            tokio::spawn(async move {
                let (first, _) = listener.accept().await.unwrap();
                reached.wait().await;
                drop((first, listener));
            });
        }

        let live = Live::new(Vec::new(), &|_| {});
        let engines = engines.iter();
        let count = all(engines.map(|engine| of_engine(engine, &doctor, &live))).await;

        assert_eq!(count, FROZEN);
        let diagnosis = live.end();
        for (id, visit) in diagnosis.visits.iter().enumerate() {
            assert!(visit.peer.starts_with(&format!("engine {id} of dpe-dev")));
            assert_eq!(visit.rows[3].layer, Layer::Grpc);
            assert!(visit.rows[3].detail.contains("without an answer"));
        }
    }

    fn engine(id: usize, status: EngineStatus) -> Engine {
        Engine {
            id: id.to_string(),
            deployment: "dpe-dev".to_owned(),
            status: status.into(),
            ..Engine::default()
        }
    }

    #[test]
    fn engines_that_are_not_ready_come_first_and_the_rest_is_counted() {
        let status = |id| match id {
            70.. => EngineStatus::Disconnected,
            _ => EngineStatus::Ready,
        };
        let engines = (0..80).map(|id| engine(id, status(id)));
        let roster = Roster::new(engines.collect(), Vec::new());

        let visited: Vec<_> = roster
            .wanted(None)
            .take(MOST_VISITED)
            .map(|engine| &*engine.id)
            .collect();
        let one: Vec<_> = roster.wanted(Some("42")).collect();
        assert_eq!(roster.wanted(Some("DPE_dev")).count(), 80);

        assert_eq!(visited.len(), 50);
        assert_eq!(
            visited[..11],
            [
                "70", "71", "72", "73", "74", "75", "76", "77", "78", "79", "0"
            ]
        );
        let detail = "registered engines: 80; 50 of them are examined, 30 are not, 30 of which are READY: name one with --peer ID";
        assert_eq!(roster.detail(None), detail);
        assert_eq!(roster.detail(Some("dpe-dev")), detail);
        assert_eq!(
            (one.len(), &*roster.detail(Some("42"))),
            (1, "registered engines: 80")
        );
    }
}
