//! What running modules say: whether a peer accepts a key, and whether the module signs with its
//! own.

mod evidence;
mod revoked;

use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status};
use tower_layer::Layer as _;

pub use self::evidence::Evidence;
pub use self::revoked::{Holdout, holdout};
use super::{Rotation, Trust};
use crate::admin::source::SettingsFile;
use crate::config::{self, ModuleKind, Settings};
use crate::grpc::tls::ClientTlsOptions;
use crate::grpc::{
    AttachIdentityLayer, ConnectError, Connection, ConnectionOptions, ProofMode, Target, cause,
    code_name, reason_of,
};
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{KeyId, SigningKey};
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::proto::identity::{WhoAmIRequest, WhoAmIResponse};
use crate::telemetry::Untrusted;
use crate::token::Reason;
use crate::trust::Deployment;

/// Longer than any module takes that answers at all; of a peer, over all calls of one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to find out whether anybody listens at all.
const PROBE: Duration = Duration::from_secs(1);

/// What a running module said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It accepts the key, and proved who it is.
    Accepted(String),
    /// A server is there that does not accept the key, or is not the module that was meant.
    Refused(String),
    /// A server is there, and does not answer.
    Silent(String),
    /// No server is there.
    NotReached(String),
    /// No module was asked, or it is not known where.
    NotAsked(String),
}

/// Where and how running modules are asked.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// Where peers listen, by the name of their deployment.
    pub addresses: BTreeMap<String, (String, u16)>,
    /// Peers that are not asked: they are cut off until their files trust the key.
    pub except: Vec<DeploymentName>,
    /// Whether no module is asked at all.
    pub offline: bool,
}

/// Asks every peer whether it accepts the next key, or the own one where that signs already.
pub async fn evidence(rotation: &Rotation, kind: &ModuleKind, asking: &Asking) -> Vec<Evidence> {
    let key = rotation.next().or(rotation.owner.checked.own.as_ref());
    let settings = load(&rotation.owner.path, kind);
    let mut all = Vec::new();
    for (deployment, file) in rotation.peers() {
        if asking.except.contains(&deployment.name) {
            continue;
        }
        let live = match (&settings, key) {
            _ if asking.offline => Answer::NotAsked("no module was asked".to_owned()),
            (Ok(settings), Some(key)) => match address(settings, deployment, file, asking) {
                Ok(place) => ask_peer(settings, key, deployment, place).await,
                Err(why) => Answer::NotAsked(why),
            },
            (Err(why), _) => Answer::NotAsked(why.clone()),
            (Ok(_), None) => Answer::NotAsked("there is no key".to_owned()),
        };
        let trust = |file: &SettingsFile| match key {
            Some((key, _)) => rotation.trust(file, key.verifying_key()),
            None => Trust::Absent,
        };
        all.push(Evidence {
            deployment: deployment.name.clone(),
            file: file.map(|file| (file.path.clone(), trust(file))),
            live,
        });
    }
    all
}

/// Asks the running module of the owner's file whether it signs with the file's key.
pub async fn own_in_force(rotation: &Rotation, kind: &ModuleKind) -> Answer {
    let settings = match load(&rotation.owner.path, kind) {
        Ok(settings) => settings,
        Err(why) => return Answer::NotAsked(why),
    };
    match ask_own_module(&settings).await {
        Ok((at, answer)) if answer.callee_fingerprint == settings.own.key_id.as_str() => {
            Answer::Accepted(format!("asked at {at}"))
        }
        Ok((at, answer)) => {
            let other = Untrusted(&answer.callee_fingerprint);
            Answer::Refused(format!("the module at {at} signs with `{other}`"))
        }
        Err(answer) => answer,
    }
}

/// Asks the running module of `settings` who it is, as the module itself.
pub(in crate::admin) async fn ask_own_module(
    settings: &Settings,
) -> Result<(Target, WhoAmIResponse), Answer> {
    let Some(target) = settings.server.own_target() else {
        let why = "the module takes a free port at each start";
        return Err(Answer::NotAsked(why.to_owned()));
    };
    let module = settings.module().map_err(unusable)?;
    let tls = settings.server.tls.clone();
    let tls = tls.map(|server| module.own_module_tls(server)).transpose();
    let options = ConnectionOptions {
        tls: tls.map_err(unusable)?,
        ..ConnectionOptions::default()
    };
    let (layer, deadline) = (module.own_module_layer(), Instant::now() + PATIENCE);
    let answer = who_am_i(&target, options, &layer, deadline).await?;
    Ok((target, answer))
}

/// Where a peer listens, and how to talk to it.
type Place = (Target, Option<ClientTlsOptions>);

/// Finds where `deployment` listens: as said, by the owner's own connection, else by its file.
fn address(
    settings: &Settings,
    deployment: &Deployment,
    file: Option<&SettingsFile>,
    asking: &Asking,
) -> Result<Place, String> {
    let connections = settings.client.connections.iter();
    let mut leads = connections.filter(|connection| {
        let named = connection.deployment.as_ref();
        connection.name == deployment.module.as_str()
            && named.is_none_or(|name| *name == deployment.name)
    });
    let connection = leads.next();
    let dial_back = || settings.client.dial_back_tls.clone();
    let tls = connection.map_or_else(dial_back, |connection| connection.tls.clone());
    if let Some((host, port)) = asking.addresses.get(deployment.name.as_str()) {
        return Ok((Target::new(host, *port), tls));
    }
    if let Some(connection) = connection {
        return Ok((Target::new(&connection.host, connection.port), tls));
    }
    let file = file.ok_or("nothing says where it listens")?;
    let peer = load(&file.path, &kind_of(&deployment.module))?;
    if peer.server.port == 0 {
        return Err("it takes a free port at each start".to_owned());
    }
    let host = match (&peer.engine.hostname, peer.server.address) {
        (Some(hostname), _) => hostname.clone(),
        (None, address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        (None, address) => address.to_string(),
    };
    Ok((Target::new(&host, peer.server.port), tls))
}

/// Returns the kind of module that has the type `module`.
pub fn kind_of(module: &ModuleType) -> ModuleKind {
    match module.as_str() {
        "dpm" => ModuleKind::Dpm,
        "dpe" => ModuleKind::Dpe,
        _ => ModuleKind::Other(module.clone()),
    }
}

fn load(file: &Path, kind: &ModuleKind) -> Result<Settings, String> {
    let settings = Settings::load(file, kind, config::environment(), &[]);
    settings.map_err(|error| {
        let why = cause(&error);
        format!("`{}` cannot be run here: {why}", file.display())
    })
}

/// Asks `deployment` whether it accepts `key`, and has it prove who it is.
///
/// The key that signs now asks first which keys are trusted there: a call of a key that is not yet
/// would be reported there as a refusal. What counts is the call that `key` itself signs.
async fn ask_peer(
    settings: &Settings,
    key: &(SigningKey, KeyId),
    deployment: &Deployment,
    place: Place,
) -> Answer {
    let (own, key_id) = (&settings.own, &key.1);
    let deadline = Instant::now() + PATIENCE;
    if own.key_id != *key_id {
        let current = (own.key.clone(), own.key_id.clone());
        match call_peer(settings, &current, deployment, &place, deadline).await {
            Ok(answer) if is_left_out(&answer, key_id) => return unknown_at(&place.0),
            // Only the call itself shows which keys are trusted there.
            Ok(_) | Err(Answer::Refused(_)) => {}
            Err(answer) => return answer,
        }
    }
    let target = &place.0;
    match call_peer(settings, key, deployment, &place, deadline).await {
        Ok(answer) if answer.fingerprint == key_id.as_str() => {
            Answer::Accepted(format!("asked at {target}"))
        }
        Ok(answer) => {
            let seen = Untrusted(&answer.fingerprint);
            Answer::Refused(format!("the module at {target} saw the key `{seen}`"))
        }
        Err(answer) => answer,
    }
}

/// Returns `true` if a module that says which of the caller's keys it has does not accept `key_id`.
fn is_left_out(answer: &WhoAmIResponse, key_id: &KeyId) -> bool {
    let known = &answer.trusted_keys;
    let mut accepted = known.iter().filter(|key| !key.revoked);
    !known.is_empty() && !accepted.any(|key| key.fingerprint == key_id.as_str())
}

fn unknown_at(target: &Target) -> Answer {
    Answer::Refused(format!("the module at {target} does not know the key"))
}

/// Calls `deployment` with a token that `key` signed, and has it prove that it is the one.
async fn call_peer(
    settings: &Settings,
    (key, key_id): &(SigningKey, KeyId),
    deployment: &Deployment,
    (target, tls): &Place,
    deadline: Instant,
) -> Result<WhoAmIResponse, Answer> {
    let mut settings = settings.clone();
    settings.own.key = key.clone();
    settings.own.key_id = key_id.clone();
    settings.proof = ProofMode::EveryCall;
    let module = settings.module().map_err(unusable)?;
    let tls = tls.clone().map(|options| module.client_tls(options));
    let options = ConnectionOptions {
        allow_plaintext: settings.client.allow_plaintext,
        tls: tls.transpose().map_err(unusable)?,
        ..ConnectionOptions::default()
    };
    let layer = module
        .client_layer(deployment.name.as_str())
        .map_err(unusable)?;
    who_am_i(target, options.towards(&deployment.name), &layer, deadline).await
}

/// The settings cannot be used to ask.
fn unusable(error: impl Error + 'static) -> Answer {
    Answer::NotAsked(cause(&error))
}

async fn who_am_i(
    target: &Target,
    options: ConnectionOptions,
    layer: &AttachIdentityLayer,
    deadline: Instant,
) -> Result<WhoAmIResponse, Answer> {
    let call = async {
        let connection = Connection::open(target, options).await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Err(not_connected(target, error.as_ref()).await),
        };
        let mut client = IdentityServiceClient::new(layer.layer(connection.channel()));
        let answer = client.who_am_i(WhoAmIRequest {}).await;
        let answer = answer.map_err(|status| not_answered(target, &status))?;
        Ok(answer.into_inner())
    };
    let answer = timeout_at(deadline, call).await;
    answer.unwrap_or_else(|_elapsed| {
        // Connecting has a shorter time-out of its own.
        let why = format!("{target} did not answer within {PATIENCE:?}");
        Err(Answer::Silent(why))
    })
}

async fn not_connected(target: &Target, error: &(dyn Error + Send + Sync + 'static)) -> Answer {
    let why = format!("{target} cannot be reached: {}", cause(error));
    let (mut is_tls, mut is_late) = (false, false);
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let failed = error.downcast_ref::<ConnectError>();
        is_tls |= matches!(failed, Some(ConnectError::Tls { .. }));
        is_late |= matches!(failed, Some(ConnectError::Timeout(_)));
        next = error.source();
    }
    if is_tls {
        return Answer::Refused(why);
    }
    // A handshake that is not answered is another thing than a host that is down.
    let place = (target.host(), target.port());
    if is_late && matches!(timeout(PROBE, TcpStream::connect(place)).await, Ok(Ok(_))) {
        return Answer::Silent(format!("{target} did not answer: {}", cause(error)));
    }
    Answer::NotReached(why)
}

fn not_answered(target: &Target, status: &Status) -> Answer {
    let code = status.code();
    let message = Untrusted(status.message());
    match reason_of(status) {
        Some(Reason::KeyUnknown) => unknown_at(target),
        Some(_) => Answer::Refused(format!("the module at {target} answers {message}")),
        None if matches!(code, Code::Unavailable | Code::DeadlineExceeded) => {
            Answer::Silent(format!("{target} did not answer: {message}"))
        }
        None => {
            let code = code_name(code);
            Answer::Refused(format!(
                "{target} answers {code}: {message}; is it the module?"
            ))
        }
    }
}
