//! HTTP as a probe speaks it.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::soon;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// Reads the first answer in `text`; the rest is its body.
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.parse().unwrap(),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Sends `request` as it is; returns everything that comes until the connection ends.
pub(crate) async fn send(to: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        // A server that has seen enough may close first.
        let _ = stream.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    soon("the end of an HTTP connection", exchange).await
}

pub(crate) async fn request(to: SocketAddr, method: &str, path: &str) -> Reply {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Reply::parse(&send(to, request).await)
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> Reply {
    request(to, "GET", path).await
}

/// Asks until the readiness probe's status is `status`; returns its JSON.
pub(crate) async fn readiness_becomes(to: SocketAddr, status: u16) -> Value {
    let asked = async {
        loop {
            let reply = get(to, "/actuator/health/readiness").await;
            if reply.status == status {
                return reply.json();
            }
            tokio::task::yield_now().await;
        }
    };
    soon(&format!("readiness {status}"), asked).await
}
