use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::clock::SystemClock;
use crate::grpc::refuse;
use crate::telemetry::{Format, LogLayer, capture, levels};
use crate::testing;
use crate::token::Reason;

/// A checker at work, and the lines that it logs.
struct World {
    lines: mpsc::UnboundedReceiver<String>,
    stop: oneshot::Sender<()>,
    checker: JoinHandle<bool>,
}

impl World {
    fn start(dpm: Target) -> Self {
        let pair = testing::pair();
        let engine = Registrant {
            id: EngineId::from_random([7; 16]),
            address: EngineAddress::new("localhost", 8532).unwrap(),
            constraints: EngineConstraints::default(),
        };
        let mut options = StatusCheckerOptions::new(dpm);
        options.check_connection_interval = Duration::from_millis(1);
        let identity = pair.dpe.client_layer("dpm-dev").unwrap();
        let checker = StatusChecker::new(engine, &identity, "1iCc", options).unwrap();

        // Wakes tracing for subscribers of several tests at once.
        let _others = capture::subscriber(Format::Json, Arc::new(SystemClock));
        let (line, lines) = mpsc::unbounded_channel();
        let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC).with_output(
            Format::Console,
            // The test may be over.
            move |text| drop(line.send(text.to_owned())),
        );
        let subscriber = Dispatch::new(tracing_subscriber::registry().with(levels()).with(layer));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { stopped.await.unwrap_or(()) };
        let run = checker.run(stopped).with_subscriber(subscriber);
        Self {
            lines,
            stop,
            checker: tokio::spawn(run),
        }
    }

    /// Stops the checker; returns the lines that are left.
    async fn stop(mut self) -> Vec<String> {
        self.stop.send(()).unwrap();
        self.checker.await.unwrap();
        let mut left = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            left.push(line);
        }
        left
    }
}

#[tokio::test]
async fn missing_dpm_is_one_line_that_says_how_to_start_it() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let mut world = World::start(Target::new("localhost", port));

    let line = world.lines.recv().await.unwrap();

    let expected = format!(
        "waiting for DPM at localhost:{port} (connection refused); start it with: countersign dpm run --home dpm"
    );
    assert!(line.contains("WARN  waitingForDpm"), "{line}");
    assert!(line.contains(&expected), "{line}");
    assert_eq!(world.stop().await, [""; 0]);
}

#[tokio::test]
async fn many_attempts_that_end_alike_are_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut world = World::start(Target::new("127.0.0.1", port));

    for _ in 0..20 {
        drop(listener.accept().await.unwrap());
    }
    let line = world.lines.recv().await.unwrap();

    assert!(line.contains("(the connection was lost)"), "{line}");
    drop(listener);
    // The end of the listener may have been noticed: another cause, another line.
    let left = world.stop().await;
    assert!(left.len() <= 1, "{left:?}");
    assert!(left.iter().all(|line| line.contains("refused")), "{left:?}");
}

#[test]
fn refusal_names_reason_key_and_help() {
    let (text, help) = explain(&refuse(Reason::KeyUnknown, None), "1iCc");

    assert_eq!(
        text,
        "KEY_UNKNOWN: the token names a key that is not trusted here (this engine's key is 1iCc)"
    );
    assert!(help.contains("countersign pair"), "{help}");
}

#[test]
fn other_answers_are_shown_escaped() {
    let (text, _) = explain(&Status::resource_exhausted("full\n\u{1b}[2J"), "1iCc");

    assert!(text.ends_with(r"full\u{a}\u{1b}[2J"), "{text}");
}
