//! Questions to a module, and what listens at its address where they get no answer.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

use crate::config::Settings;
use crate::grpc::tls::{ClientFailure, ClientTls};
use crate::grpc::{
    AttachIdentity, AttachIdentityLayer, ConnectError, Connection, ConnectionOptions, Module,
    Target, UnknownDeployment, call, cause, code_name, reason_of,
};
use crate::identity::DeploymentName;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::proto::registry::{
    Engine, ForgetEngineRequest, InactivateEngineRequest, ListEnginesRequest,
};
use crate::telemetry::Untrusted;
use crate::token::Reason;

/// The time limit for one question to a module, over all of its calls.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to find out whether a server listens at all.
const PROBE: Duration = Duration::from_secs(1);

/// Why a module gave no answer, or not the wanted one.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// What was found.
    pub found: Found,
    /// The reason in words.
    pub why: String,
    /// The reason of a refusal.
    pub reason: Option<Reason>,
}

/// What was found in place of the wanted answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// A server answers, but it does not accept the key or is a different module.
    Refused,
    /// A server is there, and does not answer.
    Silent,
    /// Something else is there.
    NotGrpc,
    /// What is there does not agree on TLS.
    Tls,
    /// No server is there.
    NotReached,
    /// No module was asked, or it is not known where.
    NotAsked,
}

impl Found {
    /// Makes the doubt that this was found.
    pub fn because(self, why: impl Into<String>) -> Doubt {
        Doubt {
            found: self,
            why: why.into(),
            reason: None,
        }
    }
}

/// Where a module is, how to connect to it, and the identity to call it with.
#[derive(Debug)]
pub struct Callee {
    /// Where it is.
    pub target: Target,
    /// Where else it is, if it is not there.
    others: Vec<Target>,
    options: ConnectionOptions,
    layer: AttachIdentityLayer,
}

impl Callee {
    /// Returns the module of `settings` itself, as its operator calls it.
    ///
    /// # Errors
    ///
    /// When its port is not known, or its certificate cannot be used.
    pub fn itself(settings: &Settings, module: &Module) -> Result<Self, Doubt> {
        takes_calls(settings)?;
        let target = settings.options.server.own_target();
        Ok(Self {
            target: target.ok_or_else(no_port)?,
            others: Vec::new(),
            options: settings.own_connection(module).map_err(unusable)?,
            layer: module.own_module_layer(),
        })
    }

    /// Returns the deployment `name` at `target`, over `connection`.
    ///
    /// # Errors
    ///
    /// When it is not trusted, or the module's certificate cannot be used.
    pub fn of(
        (settings, module): (&Settings, &Module),
        name: &DeploymentName,
        target: Target,
        connection: &str,
    ) -> Result<Self, Doubt> {
        let options = settings.connection(module, connection).map_err(unusable)?;
        Ok(Self {
            target,
            others: Vec::new(),
            options: options.towards(name),
            layer: module.layer_for(name.as_str()).map_err(unusable)?,
        })
    }

    /// Returns the DPM, as a module that trusts it calls it, or as the DPM itself does.
    ///
    /// # Errors
    ///
    /// When no connection leads there, or it is not known which deployment it is.
    pub fn registry(settings: &Settings, module: &Module) -> Result<Self, Doubt> {
        let dpm = settings.options.client.connection("dpm");
        let named = dpm.and_then(|dpm| dpm.deployment.clone());
        let known = named.map_or_else(|| module.deployment_of("dpm"), Ok);
        match (known, dpm) {
            (Err(UnknownDeployment::Module(_)), _) => Self::itself(settings, module),
            (Err(error), _) => Err(Found::NotAsked.because(cause(&error))),
            (Ok(_), None) => Err(Found::NotAsked.because("no connection to a DPM is set")),
            (Ok(name), Some(dpm)) => {
                let callee = Self::of((settings, module), &name, dpm.target.clone(), "dpm");
                callee.map(|callee| callee.or_at(&dpm.others))
            }
        }
    }

    /// Returns the same, which may also be at one of `others`.
    fn or_at(self, others: &[Target]) -> Self {
        Self {
            others: others.to_vec(),
            ..self
        }
    }

    /// Connects to it and asks it `question`, until the `deadline`.
    ///
    /// # Errors
    ///
    /// What was found in place of an answer.
    pub async fn ask<T>(
        &self,
        deadline: Instant,
        question: impl AsyncFnOnce(AttachIdentity<Connection>) -> Result<T, Status>,
    ) -> Result<T, Doubt> {
        let (mut target, options) = (&self.target, &self.options);
        let call = async {
            let mut opened = Connection::open(target, options.clone()).await;
            for other in &self.others {
                if opened.is_err() {
                    target = other;
                    opened = Connection::open(target, options.clone()).await;
                }
            }
            let connection = match opened {
                Ok(connection) => connection,
                Err(error) => return Err(not_connected(target, error.as_ref()).await),
            };
            match question(self.layer.layer(connection)).await {
                Ok(answer) => Ok(answer),
                Err(status) => Err(not_answered(target, options, &status).await),
            }
        };
        timeout_at(deadline, call).await.unwrap_or_else(|_elapsed| {
            // Connecting has a shorter time-out of its own.
            let why = format!("{} did not answer within {PATIENCE:?}", self.target);
            Err(Found::Silent.because(why))
        })
    }
}

/// Checks that the module of `settings` is not a one-way engine.
pub(super) fn takes_calls(settings: &Settings) -> Result<(), Doubt> {
    if settings.options.engine.one_way {
        return Err(Found::NotAsked.because("a one-way engine takes no calls"));
    }
    Ok(())
}

pub(super) fn no_port() -> Doubt {
    Found::NotAsked.because("the module's port changes at each start; its log names it")
}

/// The settings cannot be used to ask.
pub(super) fn unusable(error: impl Error + 'static) -> Doubt {
    Found::NotAsked.because(cause(&error))
}

pub(super) fn unknown_at(target: &Target) -> Doubt {
    Found::Refused.because(format!(
        "the module at {target} does not know the key (KEY_UNKNOWN)"
    ))
}

async fn not_connected(target: &Target, error: &(dyn Error + Send + Sync + 'static)) -> Doubt {
    let why = cause(error);
    match ConnectError::find_in(error) {
        // A handshake that is not answered differs from a host that is down.
        Some(ConnectError::Timeout(_)) if is_listening(target, PROBE).await => {
            Found::Silent.because(format!("{target} did not answer: {why}"))
        }
        Some(ConnectError::Tls(..)) => {
            Found::Tls.because(format!("{target} cannot be reached: {why}"))
        }
        _ => Found::NotReached.because(format!("{target} cannot be reached: {why}")),
    }
}

/// Returns `true` if a server accepts a connection at `target` within `limit`.
pub(super) async fn is_listening(target: &Target, limit: Duration) -> bool {
    let connecting = TcpStream::connect((target.host(), target.port()));
    matches!(timeout(limit, connecting).await, Ok(Ok(_)))
}

async fn not_answered(target: &Target, options: &ConnectionOptions, status: &Status) -> Doubt {
    let (code, reason) = (status.code(), reason_of(status));
    let message = Untrusted(status.message());
    if reason.is_none()
        && let Some(why) = look(target, options).await
    {
        let found = match why {
            NotGrpc::Tls(ClientFailure::CertificateRefused(..)) => Found::Tls,
            _ => Found::NotGrpc,
        };
        return found.because(format!("{target} {why}"));
    }
    let doubt = match reason {
        Some(Reason::KeyUnknown) => unknown_at(target),
        Some(_) => Found::Refused.because(format!("the module at {target} answers {message}")),
        // With a cause, the connection broke: it is no answer.
        None if matches!(code, Code::Unavailable | Code::DeadlineExceeded)
            || status.source().is_some() =>
        {
            Found::Silent.because(format!("{target} did not answer: {message}"))
        }
        None => {
            let name = code_name(code);
            let why = format!("{target} answers {name}: {message}; is it the module?");
            Found::Refused.because(why)
        }
    };
    Doubt { reason, ..doubt }
}

/// Why what listens there is no gRPC server of ours; its text follows the address.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotGrpc {
    #[error("does not agree on TLS: {}", .0.in_full())]
    Tls(ClientFailure),
    #[error("speaks HTTP/1.1, not gRPC: it is a web server or an HTTP port")]
    WebServer,
    #[error("does not speak HTTP/2")]
    NotHttp2,
    #[error("speaks HTTP/2, but it is not a countersign module")]
    NotCountersign,
    #[error("accepts and sends nothing within {0:?}")]
    Silent(Duration),
    #[error("accepts and {0} the connection without an answer")]
    Ends(&'static str),
}

/// A connection on which HTTP/2 can begin: without TLS, or with it.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Finds out, over connections of its own, why a call to `target` failed; `None` if that does not
/// show. Each question may take as long as connecting.
async fn look(target: &Target, options: &ConnectionOptions) -> Option<NotGrpc> {
    let limit = options.connect_timeout;
    let connecting = TcpStream::connect((target.host(), target.port()));
    let tcp = timeout(limit, connecting).await.ok()?.ok()?;
    let address = tcp.peer_addr().ok()?;
    let stream = match &options.tls {
        None => Either::Left(tcp),
        Some(tls) => match timeout(limit, tls.connect(target.host(), tcp)).await.ok()? {
            Ok(stream) => Either::Right(stream),
            Err(failure) => return Some(NotGrpc::Tls(failure)),
        },
    };
    if let Err(why) = greet(stream, address, options.tls.as_ref(), limit).await {
        return Some(why);
    }
    let connection = Connection::lazy(target, options.clone()).ok()?;
    let mut client = HealthClient::new(connection).max_decoding_message_size(64 * 1024);
    let request = HealthCheckRequest::default();
    let health = call(limit, request, |request| client.check(request)).await;
    let is_other = health.is_err_and(|status| status.code() == Code::Unimplemented);
    is_other.then_some(NotGrpc::NotCountersign)
}

/// Greets as an HTTP/2 client and waits for the server's SETTINGS.
///
/// In TLS 1.3 the server's refusal comes only with the first bytes, and plaintext learns only then
/// of TLS.
pub(super) async fn greet(
    mut stream: Stream,
    address: SocketAddr,
    tls: Option<&ClientTls>,
    limit: Duration,
) -> Result<(), NotGrpc> {
    let mut first = Vec::new();
    let ended = timeout(limit, first_bytes(&mut stream, GREETING, &mut first)).await;
    match first.as_slice() {
        // A SETTINGS frame of stream 0 ([RFC 9113, 6.5]), which comes before all others.
        [_, _, _, 4, _, 0, 0, 0, 0] => return Ok(()),
        // A TLS record: an alert or a handshake.
        [0x15 | 0x16, 3, ..] if tls.is_none() => {
            return Err(NotGrpc::Tls(ClientFailure::TlsExpected));
        }
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(NotGrpc::WebServer),
        // Two bytes say more than how the connection ended.
        [_, _, ..] => return Err(NotGrpc::NotHttp2),
        [] | [_] => {}
    }
    if let (Ok(Err(error)), Some(tls)) = (&ended, tls)
        && let Some(failure) = tls.explain_later(error)
    {
        return Err(NotGrpc::Tls(failure));
    }
    // One that says nothing is not given the time again.
    if tls.is_none() && ended.is_ok() && is_web_server(address, limit).await {
        return Err(NotGrpc::WebServer);
    }
    Err(match ended {
        Err(_elapsed) => NotGrpc::Silent(limit),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => NotGrpc::Ends("resets"),
        Ok(_) => NotGrpc::Ends("closes"),
    })
}

/// What a client says first, and its empty SETTINGS ([RFC 9113, 3.4]).
///
/// [RFC 9113, 3.4]: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends `greeting` and reads into `first` as many bytes of the answer as a frame's head has.
async fn first_bytes(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    greeting: &[u8],
    first: &mut Vec<u8>,
) -> io::Result<()> {
    // A server that refuses a connection may do so before it has read anything: its answer counts.
    let written = stream.write_all(greeting).await;
    let flushed = stream.flush().await;
    stream.take(9).read_to_end(first).await?;
    written.and(flushed)
}

/// Asks as a web client does; returns `true` if a web server answers.
///
/// Many end a connection without a word when HTTP/2 greets them.
async fn is_web_server(address: SocketAddr, limit: Duration) -> bool {
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut first = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        first_bytes(&mut stream, request.as_bytes(), &mut first).await
    };
    // What it says counts, however the connection ends.
    let _ = timeout(limit, asking).await;
    first.starts_with(b"HTTP/1.")
}

/// A client of a registry, with this module's identity.
pub type Registry = EngineRegistryServiceClient<AttachIdentity<Connection>>;

/// Lists all engines that the caller may see, without a time limit of its own.
///
/// # Errors
///
/// The status that the registry returns instead of a page.
pub async fn list_engines(channel: AttachIdentity<Connection>) -> Result<Vec<Engine>, Status> {
    let listed = list_with_revision(channel).await?;
    Ok(listed.0)
}

/// Lists them, and says from where to watch what changes after that.
pub(super) async fn list_with_revision(
    channel: AttachIdentity<Connection>,
) -> Result<(Vec<Engine>, String), Status> {
    let mut client = Registry::new(channel);
    let mut engines = Vec::new();
    let (mut page_token, mut revision) = (String::new(), None);
    loop {
        let request = ListEnginesRequest {
            page_size: 1000,
            page_token,
        };
        let answer = client.list_engines(Request::new(request)).await?;
        let page = answer.into_inner();
        engines.extend(page.engines);
        let first = revision.get_or_insert(page.revision);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((engines, std::mem::take(first)));
        }
    }
}

/// Has the registry that `channel` leads to forget the engine `id`.
///
/// # Errors
///
/// When the call fails or is refused.
pub async fn forget_engine(channel: AttachIdentity<Connection>, id: &str) -> Result<(), Status> {
    let engine_id = id.to_owned();
    let request = ForgetEngineRequest { engine_id };
    Registry::new(channel)
        .forget_engine(request)
        .await
        .map(drop)
}

/// Has the registry that `channel` leads to make the engine `id` INACTIVE; returns the record.
///
/// # Errors
///
/// When the call fails or is refused.
pub async fn inactivate_engine(
    channel: AttachIdentity<Connection>,
    id: &str,
) -> Result<Engine, Status> {
    let engine_id = id.to_owned();
    let request = InactivateEngineRequest { engine_id };
    let answer = Registry::new(channel).inactivate_engine(request).await?;
    Ok(answer.into_inner().engine.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::TcpListener;

    use super::*;

    /// The first bytes of a server that answers `bytes` and ends.
    async fn first_of(bytes: &[u8]) -> Vec<u8> {
        let (mut client, mut server) = duplex(1024);
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let mut first = Vec::new();
        first_bytes(&mut client, GREETING, &mut first)
            .await
            .unwrap();
        drop(server);
        first
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_accepts_and_says_nothing_is_waited_for_once() {
        let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = frozen.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (start, limit) = (Instant::now(), Duration::from_secs(5));

        let greeted = greet(Either::Left(stream), address, None, limit).await;

        assert!(matches!(greeted, Err(NotGrpc::Silent(_))));
        // A timer ends up to a millisecond late.
        assert!(start.elapsed() < limit + Duration::from_millis(10));
    }

    #[tokio::test]
    async fn first_bytes_are_read_however_few_there_are() {
        let alert = b"\x15\x03\x03\0\x02\x02\x46";

        assert_eq!(first_of(alert).await, alert);
        let settings = first_of(b"\0\0\0\x04\0\0\0\0\0rest").await;
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(first_of(b"").await, b"");
    }
}
