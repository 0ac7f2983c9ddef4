use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::engine::{EngineConstraints, EngineId, EngineStatus, Owner};

fn dialer(resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Dialer {
    let policy = AddressPolicy::default();
    Dialer::new(policy, Resolver::new(resolve), ConnectionOptions::default())
}

fn engine(hostname: &str, port: u16) -> Engine {
    Engine {
        id: EngineId::from_random([1; 16]),
        address: EngineAddress::new(hostname, port.into()).unwrap(),
        constraints: EngineConstraints::default(),
        status: EngineStatus::New,
        suspect: false,
        status_reason: None,
        dial_back_failure: None,
        owner: Owner {
            deployment: "dpe-dev".into(),
            module: "dpe".into(),
            environment: None,
            fingerprint: "k".into(),
        },
        over_loopback: true,
        instance: None,
        heartbeat_interval: None,
        held: None,
        registered_at: SystemTime::UNIX_EPOCH,
        last_seen_at: SystemTime::UNIX_EPOCH,
    }
}

async fn dial(dialer: &Dialer, engine: &Engine) -> Result<Connection, DialError> {
    let owner = DeploymentName::new("dpe-dev").unwrap();
    dialer.dial(engine, &owner).await
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn name_is_resolved_once_for_each_dialling_and_judged_each_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let dialer = dialer(move |name| {
        assert_eq!(name, "dpe.example.org");
        Ok(match count.fetch_add(1, Ordering::SeqCst) {
            0 => vec![ip("127.0.0.1")],
            _ => vec![ip("169.254.169.254")],
        })
    });
    let engine = engine("dpe.example.org", port);

    let connection = dial(&dialer, &engine).await.unwrap();

    // The answer of a second question would not have been connected to.
    assert_eq!(connection.opened(), 1);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let rebound = dial(&dialer, &engine).await;
    let Err(DialError::Refused(refusal)) = rebound else {
        panic!("{rebound:?}");
    };
    let rule = "169.254.169.254 is the metadata address of a cloud";
    assert_eq!(refusal.to_string(), rule);
}

#[tokio::test]
async fn literal_is_never_asked_of_the_resolver() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = dialer(|name| panic!("asked for {name}"));

    dial(&dialer, &engine("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn resolver_that_hangs_delays_no_other_and_takes_8_threads_at_most() {
    let (entered, entries) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let dialer = Arc::new(dialer(move |_| {
        entered.send(()).unwrap();
        // Ends with the sender.
        let _ = released.lock().unwrap().recv();
        Err(ErrorKind::NotFound.into())
    }));
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let dialer = Arc::clone(&dialer);
        waiting.spawn(async move {
            let address = EngineAddress::new("dpe.example.org", 8532).unwrap();
            let destination = Destination {
                deployment: "dpe-dev",
                address: &address,
                over_loopback: true,
            };
            dialer.judge(&destination).await
        });
    }

    // All give up after the same 2 s. An engine that cannot be judged now is judged before it is
    // dialled.
    assert_eq!(waiting.join_all().await, vec![Ok(()); 20]);
    drop(release);
    drop(dialer);
    assert_eq!(entries.iter().count(), 8);
}

#[test]
fn only_addresses_of_this_machine_are_local() {
    assert!(is_local(ip("127.0.0.1")).unwrap());
    // Documentation addresses (RFC 5737, RFC 3849) belong to no host.
    assert!(!is_local(ip("192.0.2.1")).unwrap());
    assert!(!is_local(ip("2001:db8::1")).unwrap());
}
