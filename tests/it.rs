#![cfg(test)]
//! Behaviour seen from outside, over real sockets.

#[path = "it/layers.rs"]
mod layers;
