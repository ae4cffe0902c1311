//! A server between the program and a server, which passes everything on and counts the bytes, and can be cut off.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Bytes that went each way, headers included.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// What goes through, and whether anything does.
#[derive(Debug, Default)]
struct Wire {
    is_cut: bool,
    clients: Vec<TcpStream>,
}

/// A listening port on loopback behind which another server is. It lives as long as the test's process.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// `http://127.0.0.1:PORT`
    pub(crate) endpoint: String,
    counts: Arc<Counts>,
    wire: Arc<Mutex<Wire>>,
}

impl Proxy {
    /// In front of `http://HOST:PORT`.
    pub(crate) fn before(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").expect("an http endpoint").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::new(Counts::default());
        let wire = Arc::new(Mutex::new(Wire::default()));
        let (shared, ours) = (counts.clone(), wire.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let mut wire = ours.lock().unwrap();
                if wire.is_cut {
                    continue;
                }
                wire.clients.push(client.try_clone().unwrap());
                let server = TcpStream::connect(&server).unwrap();
                let (there, back) = (shared.clone(), shared.clone());
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from_client, to_server, &there.sent));
                thread::spawn(move || pass(server, client, &back.received));
            }
        });
        Self { endpoint, counts, wire }
    }

    /// Hangs up on everybody, as a server does that goes away, and lets nobody in again.
    pub(crate) fn cut(&self) {
        let mut wire = self.wire.lock().unwrap();
        wire.is_cut = true;
        for client in wire.clients.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// The server is back.
    pub(crate) fn mend(&self) {
        self.wire.lock().unwrap().is_cut = false;
    }

    /// Bytes that went to the server so far.
    pub(crate) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::SeqCst)
    }

    /// Bytes that came from the server so far.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received.load(Ordering::SeqCst)
    }
}

/// Until one end hangs up, which the other then hears of.
fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // Counted before they go on: who has an answer finds the request counted.
        count.fetch_add(length as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
}
