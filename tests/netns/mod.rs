//! Unchanged programs in network namespaces of their own, with everything that they send and receive redirected to sidecars.

mod bulk;
mod databases;
mod first_words;
mod http;
mod inbound;
mod outside;
mod partition;
mod restart;
