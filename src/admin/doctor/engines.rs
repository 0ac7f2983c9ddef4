//! A DPM's peers: itself, and the engines that it knows.

use tokio::time::timeout;

use super::identity;
use super::peer::{Doctor, Peer, unusable};
use super::report::{Layer, Row, Side, Visit};
use super::way_back::{self, failure_of, not_allowed};
use crate::admin::roster;
use crate::engine::{EngineAddress, FailureKind};
use crate::grpc::call;
use crate::identity::DeploymentName;
use crate::proto::convert::status_word;
use crate::proto::engine::CheckStatusRequest;
use crate::proto::engine::engine_service_client::EngineServiceClient;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::proto::registry::{Engine, EngineStatus};
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

/// No peer has that name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no connection or engine `{0}` is known")]
pub struct NoSuchPeer(pub(super) String);

/// Visits the running DPM, which is `peer`, then its engines, as the dial-back does.
pub(super) async fn visits(doctor: &Doctor<'_>, peer: &Peer) -> Result<Vec<Visit>, NoSuchPeer> {
    let wanted = doctor.options.peer.as_deref();
    let mut known = None;
    let trusted = doctor.settings.deployments.iter();
    let dpes = trusted.filter(|deployment| deployment.module.as_str() == "dpe");
    let title = format!("{} itself at {}", peer.name, peer.target);
    let own = Visit::to(title, async |visit| {
        let engines = list(visit, doctor, peer).await?;
        let names = dpes.map(|deployment| deployment.name.to_string());
        let roster = known.insert(Roster::new(engines, names.collect()));
        // Those that are registered are visited whatever is missing.
        visit.add(roster.judge(wanted)?);
        Ok(())
    });
    let mut visits = vec![own.await];
    let Some(roster) = known else {
        return Ok(visits);
    };
    for engine in roster.wanted(wanted).take(MOST_VISITED) {
        visits.push(of_engine(engine, doctor).await);
    }
    match wanted {
        Some(name) if visits.len() == 1 && !roster.without.iter().any(|dpe| dpe == name) => {
            Err(NoSuchPeer(name.to_owned()))
        }
        Some(_) | None => Ok(visits),
    }
}

/// Asks the running DPM for its engines.
async fn list(visit: &mut Visit, doctor: &Doctor<'_>, peer: &Peer) -> Result<Vec<Engine>, Row> {
    if doctor.settings.options.server.port == 0 {
        let detail = "this DPM's port changes at each start";
        return Err(Row::fail(Layer::Name, Side::Here, detail)
            .help("use the port in its log: --set ataccama.server.grpc.port=PORT"));
    }
    let (channel, _) = identity::acquaint(visit, peer).await?;
    let no_role = "a module needs no role to ask itself";
    visit.add(Row::skip(Layer::Role, no_role));
    let mut client = EngineRegistryServiceClient::new(channel);
    let why = match timeout(peer.limit(), roster::list(&mut client)).await {
        Ok(Ok(engines)) => return Ok(engines),
        Ok(Err(status)) => Untrusted(status.message()).to_string(),
        Err(_late) => "no answer in time".to_owned(),
    };
    let detail = format!("the engines cannot be listed: {why}");
    Err(Row::fail(Layer::WayBack, Side::Here, detail))
}

async fn of_engine(engine: &Engine, doctor: &Doctor<'_>) -> Visit {
    let address = engine.address.clone().unwrap_or_default();
    let status = match engine.status() {
        EngineStatus::Ready => String::new(),
        _ => format!(", {}", status_word(engine.status)),
    };
    let title = format!(
        "engine {} of {} at {}:{}{status}",
        Untrusted(&engine.id),
        Untrusted(&engine.deployment),
        Untrusted(&address.hostname),
        address.port
    );
    let examined = Visit::to(title, async |visit| {
        if let Some(row) = not_trusted(engine, doctor) {
            let skipped = Layer::Name..row.layer;
            for (layer, _) in Layer::ALL
                .into_iter()
                .filter(|(layer, _)| skipped.contains(layer))
            {
                let detail = "an engine of an untrusted owner is not dialled";
                visit.add(Row::skip(layer, detail));
            }
            return Err(row);
        }
        let layer = Layer::Name;
        let dialled = peer(engine, doctor).map_err(|row| Row { layer, ..row })?;
        dial(visit, &dialled, engine).await
    });
    examined.await
}

/// Says that the engine's deployment is not trusted.
fn not_trusted(engine: &Engine, doctor: &Doctor<'_>) -> Option<Row> {
    let owner = DeploymentName::new(&engine.deployment).ok()?;
    let trust = doctor.module.trust().load();
    if trust.deployment(owner.as_str()).is_some() {
        return None;
    }
    let settings = doctor.settings;
    let (file, kind) = (settings.home.file.display(), &settings.own.module);
    let detail = format!("no trusted deployment is called `{owner}` in {file}");
    let row = Row::fail(Layer::Token, Side::Here, detail)
        .help(format!("countersign pair {kind}={file} dpe=<the engine's file>"))
        .help(format!(
            "or, if you only have its public key: countersign deployment add {owner} --file {file} --module dpe --public-key <its key>"
        ));
    Some(row)
}

/// Returns the engine as a peer, unless the registry does not dial it.
fn peer(engine: &Engine, doctor: &Doctor<'_>) -> Result<Peer, Row> {
    // The registry knows from where the engine registered, and has the last word.
    if failure_of(engine) == Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) {
        let reason = UntrustedReason(&engine.status_reason).to_string();
        let row = Row::fail(Layer::Name, Side::Here, reason);
        let file = doctor.settings.home.file.display().to_string();
        return Err(not_allowed(row, &engine.deployment, &file));
    }
    let address = EngineAddress::try_from(&engine.address.clone().unwrap_or_default());
    let owner = DeploymentName::new(&engine.deployment);
    doctor.engine(
        owner.map_err(|error| unusable(&error))?,
        address.map_err(|error| unusable(&error))?,
    )
}

async fn dial(visit: &mut Visit, peer: &Peer, engine: &Engine) -> Result<(), Row> {
    let (channel, _) = identity::acquaint(visit, peer).await?;
    let mut client = EngineServiceClient::new(channel).max_decoding_message_size(64 * 1024);
    let (limit, question) = (peer.limit(), CheckStatusRequest {});
    let asking = call(limit, question, |request| client.check_status(request));
    let looking = async { identity::role(peer, asking.await) };
    let answer = visit.look(looking).await?;
    if answer.engine_id != engine.id {
        let detail = format!("engine {} answers there", Untrusted(&answer.engine_id));
        return Err(Row::fail(Layer::WayBack, Side::Peer, detail).help(&peer.remedy.host));
    }
    visit.add(way_back::seen(engine, peer)?);
    Ok(())
}

/// More engines than this are not visited: each may take its time.
const MOST_VISITED: usize = 50;

/// More engines than this that left are not named.
const MOST_NAMED: usize = 8;

/// Which engines the registry lists, and which deployments have none.
#[derive(Debug)]
struct Roster {
    /// Those that are registered: first those that are not READY.
    active: Vec<Engine>,
    /// Those that left.
    gone: Vec<Engine>,
    /// The trusted deployments of DPEs without a registered engine.
    without: Vec<String>,
}

impl Roster {
    fn new(engines: Vec<Engine>, mut without: Vec<String>) -> Self {
        let (gone, mut active): (Vec<_>, Vec<_>) = engines
            .into_iter()
            .partition(|engine| engine.status() == EngineStatus::Inactive);
        active.sort_by_key(is_ready);
        without.retain(|name| !active.iter().any(|engine| engine.deployment == *name));
        Self {
            active,
            gone,
            without,
        }
    }

    /// Goes through the registered engines that `wanted` names.
    fn wanted(&self, wanted: Option<&str>) -> impl Iterator<Item = &Engine> {
        let active = self.active.iter();
        active.filter(move |engine| wanted.is_none_or(|name| is_called(engine, name)))
    }

    /// Fails if no engine is registered at all, or none of the `wanted` deployment.
    fn judge(&self, wanted: Option<&str>) -> Result<Row, Row> {
        let detail = self.detail(wanted);
        let lacks = match wanted {
            Some(wanted) => self.without.iter().any(|name| name == wanted),
            None => self.active.is_empty() && !self.without.is_empty(),
        };
        if !lacks {
            return Ok(Row::skip(Layer::WayBack, detail));
        }
        Err(Row::fail(Layer::WayBack, Side::Peer, detail)
            .help("start the engine: countersign dpe run --home <its home>")
            .help("for more, run on the engine's host: countersign doctor --home <its home>"))
    }

    fn detail(&self, wanted: Option<&str>) -> String {
        let mut parts = vec![format!("registered engines: {}", self.active.len())];
        let left: Vec<_> = self.wanted(wanted).skip(MOST_VISITED).collect();
        if !left.is_empty() {
            let (count, ready) = (left.len(), left.iter().filter(|e| is_ready(e)).count());
            parts.push(format!(
                "{MOST_VISITED} of them are examined, {count} are not, {ready} of which are READY: \
                 name one with --peer ID"
            ));
        }
        if !self.without.is_empty() {
            parts.push(format!("none of {}", self.without.join(", ")));
        }
        parts.extend(self.gone.iter().take(MOST_NAMED).map(|engine| {
            let (id, owner) = (Untrusted(&engine.id), Untrusted(&engine.deployment));
            format!("engine {id} of {owner} is INACTIVE")
        }));
        let more = self.gone.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            parts.push(format!("{more} more are INACTIVE"));
        }
        parts.join("; ")
    }
}

fn is_ready(engine: &Engine) -> bool {
    engine.status() == EngineStatus::Ready
}

/// Returns `true` if `name` is the engine's id, deployment or `host:port`.
fn is_called(engine: &Engine, name: &str) -> bool {
    let address = engine.address.clone().unwrap_or_default();
    let address = format!("{}:{}", address.hostname, address.port);
    [&*engine.id, &*engine.deployment, &*address].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
