//! HTTP/2 frames made by hand, right or wrong.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use tokio::net::TcpSocket;

use crate::support::world::PATIENCE;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// On SETTINGS and PING.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// The path of a method that everyone may call.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The gRPC message with an empty request.
pub(super) const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Encodes the headers of a gRPC request, none of them compressed or indexed.
pub(super) fn request(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let fields = fields.iter();
    fields
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// Encodes one header.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.extend(length(text.len()));
        field.extend(text.bytes());
    }
    field
}

/// Encodes an integer after one bit.
fn length(n: usize) -> Vec<u8> {
    let Some(mut rest) = n.checked_sub(127) else {
        return vec![u8::try_from(n).unwrap()];
    };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The headers and the message of a request for [`HEALTH`].
pub(super) fn call(stream: u32) -> Vec<u8> {
    let mut call = frame(HEADERS, END_HEADERS, stream, &request(HEALTH));
    call.extend(frame(DATA, END_STREAM, stream, EMPTY));
    call
}

/// What a server sent: a frame's kind, flags, stream and payload.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Returns `true` if it is the last of the reply on `stream`.
    pub(super) fn ends(&self, stream: u32) -> bool {
        self.stream == stream && self.kind != RST_STREAM && self.flags & END_STREAM != 0
    }

    /// Returns the error of a GOAWAY.
    pub(super) fn goaway(&self) -> Option<u32> {
        let code = self.payload.get(4..8)?.try_into().unwrap();
        (self.kind == GOAWAY).then(|| u32::from_be_bytes(code))
    }
}

/// A client that keeps to no rule.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    /// Connects and says nothing.
    pub(super) fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(tcp)
    }

    /// Connects and begins HTTP/2 with `settings`.
    pub(super) fn http2(address: SocketAddr, settings: &[u8]) -> Self {
        let mut raw = Self::connect(address);
        raw.send(PREFACE);
        raw.send(&frame(SETTINGS, 0, 0, settings));
        raw
    }

    /// Connects from an address of this machine and begins HTTP/2.
    pub(super) fn http2_from(from: [u8; 4], address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let connected = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        connected.set_nonblocking(false).unwrap();
        connected.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Self(connected);
        raw.send(PREFACE);
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        raw
    }

    /// Sends `bytes`, or what of them the server still takes.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Ok(()) => {}
            Err(error) => assert!(is_end(&error), "{error}"),
        }
    }

    /// Returns the next frame; none once the server closed the connection.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if !self.read(&mut head) {
            return None;
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.read(&mut payload).then(|| Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// Returns the next frame that `wanted` holds for.
    #[track_caller]
    pub(super) fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().expect("the server closed the connection");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Returns the GOAWAY's error after which the server closes the connection.
    #[track_caller]
    pub(super) fn refused(&mut self) -> u32 {
        let code = self.until(|frame| frame.kind == GOAWAY).goaway().unwrap();
        while self.next().is_some() {}
        code
    }

    /// Reads until the server closes the connection.
    pub(super) fn closed(&mut self) {
        while self.next().is_some() {}
    }

    /// Reads a TLS alert, after which the server closes the connection.
    #[track_caller]
    pub(super) fn alerted(&mut self) {
        let mut alert = Vec::new();
        match self.0.read_to_end(&mut alert) {
            Ok(_) => {}
            Err(error) => assert!(is_end(&error), "{error}"),
        }
        assert_eq!(alert.first(), Some(&21), "{alert:?}");
    }

    fn read(&mut self, into: &mut [u8]) -> bool {
        match self.0.read_exact(into) {
            Ok(()) => true,
            Err(error) if is_end(&error) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}
