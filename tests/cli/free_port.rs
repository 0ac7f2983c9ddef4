//! Ports for servers that get theirs before they start.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

/// Finds a port for a server to be started.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut caller = TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    // The side that closes first keeps the port for a minute: a program that asks for any port does
    // not get it.
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    address.port()
}
