//! Whether a request is meant for this port.
//!
//! A web page that a browser shows can have its own name lead to this machine. The browser then
//! sends that name as the host, so that only known ones are answered.

use std::net::IpAddr;

use http::StatusCode;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// Judges a request that came to the address `local`; `allowed` are further names of this port.
///
/// # Errors
///
/// 400 unless there is exactly one host, 421 if it is another than this port's.
pub(super) fn judge(
    head: &Parts,
    local: Option<IpAddr>,
    allowed: &[String],
) -> Result<(), StatusCode> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let host = Authority::try_from(host.as_bytes())
        .ok()
        .filter(|host| !host.host().is_empty())
        .ok_or(StatusCode::BAD_REQUEST)?;
    let mut named = [Some(&host), head.uri.authority()].into_iter().flatten();
    if named.all(|host| is_ours(host, local, allowed)) {
        Ok(())
    } else {
        Err(StatusCode::MISDIRECTED_REQUEST)
    }
}

fn is_ours(host: &Authority, local: Option<IpAddr>, allowed: &[String]) -> bool {
    if host.as_str().contains('@') {
        return false;
    }
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let address = name.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    (address.is_some() && address == local.map(|local| local.to_canonical()))
        || name.eq_ignore_ascii_case("localhost")
        || allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the status with which a request for `target` with `hosts`, at 192.0.2.1, is refused.
    fn refused(target: &str, hosts: &[&str]) -> Option<u16> {
        let mut request = http::Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let local = "192.0.2.1".parse().ok();
        let allowed = ["Metrics.Example".to_owned(), "2001:db8::1".to_owned()];
        judge(&head, local, &allowed)
            .err()
            .map(|status| status.as_u16())
    }

    #[test]
    fn hosts_of_the_port_are_answered() {
        for host in [
            "192.0.2.1",
            "192.0.2.1:8031",
            "[::ffff:192.0.2.1]:8031",
            "localhost",
            "LOCALHOST:1",
            "metrics.example:8031",
            "[2001:db8::1]",
        ] {
            assert_eq!(refused("/actuator", &[host]), None, "{host}");
        }
    }

    #[test]
    fn other_hosts_are_misdirected() {
        for host in [
            "evil.example",
            "127.0.0.1",
            "192.0.2.10",
            "localhost.evil.example",
            "evil.example:8031",
            "localhost@evil.example",
            "evil@localhost",
            "[::1]",
            "metrics.example.",
        ] {
            assert_eq!(refused("/", &[host]), Some(421), "{host}");
        }
    }

    #[test]
    fn request_without_exactly_one_host_is_400() {
        let rows: [&[&str]; 6] = [
            &[],
            &[""],
            &["localhost", "localhost"],
            &["localhost", "evil.example"],
            &["local host"],
            &["localhost, evil.example"],
        ];
        for hosts in rows {
            assert_eq!(refused("/actuator", hosts), Some(400), "{hosts:?}");
        }
    }

    #[test]
    fn absolute_target_is_refused() {
        let target = |host: &str| format!("http://{host}/actuator");

        assert_eq!(refused(&target("localhost"), &["localhost"]), None);
        assert_eq!(refused(&target("evil.example"), &["localhost"]), Some(421));
        assert_eq!(refused(&target("localhost"), &["evil.example"]), Some(421));
    }
}
