//! From `start` to a receiver's answer, over real sockets; the conservation law after each fault.

mod fan_out;
mod flow;
mod host;
mod outage;
mod sizes;
mod support;
mod tonic;
