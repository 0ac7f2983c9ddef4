//! `engines` and `rotate` at ports where something else listens.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::doctor::listener;
use super::modules::{ANY_PORT, Running, paired, paired_with};

/// Every other thing that may have the port, with what is said of it.
fn others() -> Vec<(u16, &'static str)> {
    let web = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    let web_that_closes = listener(|mut stream| {
        let mut request = [0; 3];
        if stream.read_exact(&mut request).is_ok() && &request == b"GET" {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    let ssh = listener(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let tls = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"\x15\x03\x03\0\x02\x02\x46");
    });
    let proxy = listener(|stream| {
        let _ = stream.shutdown(Shutdown::Both);
    });
    let web_server = "speaks HTTP/1.1, not gRPC: it is a web server or an HTTP port";
    vec![
        (web, web_server),
        (web_that_closes, web_server),
        (ssh, "does not speak HTTP/2"),
        (tls, "speaks TLS on this port"),
        (proxy, "the connection without an answer"),
        (
            http_2(),
            "speaks HTTP/2, but it is not a countersign module",
        ),
    ]
}

/// Serves HTTP/2 and no service.
fn http_2() -> u16 {
    let (send, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            send.send(incoming.local_addr().unwrap().port()).unwrap();
            let server = Server::builder().add_routes(Routes::default());
            server.serve_with_incoming(incoming).await
        })
    });
    port.recv().unwrap()
}

#[test]
fn engines_at_a_port_without_a_dpm_are_exit_5_with_doctors_sentence() {
    let folder = paired();

    for (port, what) in others() {
        let id = "0031debd-6130-4b4a-8eaf-7a834555cf33";
        for command in ["list".to_owned(), format!("show {id}")] {
            let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
            let run = folder.run(&format!("engines {command} --home dpe {to_dpm}"));

            let run = run.exits(5);
            assert!(run.stderr.contains(what), "{what}: {}", run.stderr);
            assert!(run.stderr.contains(&port.to_string()), "{}", run.stderr);
            assert!(!run.stderr.contains("CANCELLED"), "{}", run.stderr);
        }
    }
}

#[test]
fn rotation_at_a_port_without_its_peer_is_exit_5_with_doctors_sentence() {
    for (port, what) in others() {
        let dpe = format!(
            "ataccama.client.connection.dpm.host=127.0.0.1\n\
             ataccama.client.connection.dpm.grpc.port={port}\n"
        );
        let folder = paired_with(&[("dpe/etc/application.properties", &dpe)]);
        let files = "--home dpe --peer-file dpm";
        folder
            .run(&format!("rotate prepare {files} --yes"))
            .exits(0);

        let run = folder.run(&format!("rotate activate {files} --yes"));

        let run = run.exits(5);
        assert!(run.stderr.contains(what), "{what}: {}", run.stderr);
    }
}

#[test]
fn engine_that_is_asked_for_engines_is_exit_4() {
    let folder = paired();
    let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT}"));
    let port = dpe.port();

    let own = format!("--home dpm --set ataccama.server.grpc.port={port}");
    folder.run(&format!("engines list {own}")).exits(4);
}
