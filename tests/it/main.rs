#![cfg(test)]
//! The modules seen from outside: in-process DPMs and DPEs on loopback, with fresh keys.

mod dial_back;
mod lifecycle;
mod registration;
mod services;
mod shutdown;
mod support;
