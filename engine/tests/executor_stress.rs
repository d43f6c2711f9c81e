//! The executor under CPU contention: sockets, direct writes, fdatasync and timers together, and no wake may be lost.
//!
//! The host keeps three rules (see `host/mod.rs`): the preemption timer is out of reach, every task queue is
//! `NotImportant`, nothing wakes an executor from another thread. This test runs an executor built by the very
//! function the host uses, beside twice as many busy threads as the machine has cores, and counts operations.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::DmaFile;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use ringraft_engine::host::executor_builder;

const ECHOES: u64 = 20_000;
const FLUSHES: u64 = 2_000;
const TICKS: u64 = 500;
/// No operation may wait this long; a lost wake waits for ever.
const HANG: Duration = Duration::from_secs(20);

fn busy_threads(stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    (0..cores * 2)
        .map(|_| {
            let stop = Arc::clone(stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect()
}

async fn echo(mut stream: TcpStream) {
    let mut bytes = [0u8; 64];
    while stream.read_exact(&mut bytes).await.is_ok() {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn ask(address: SocketAddr, done: Rc<Cell<u64>>, progress: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let mut bytes = [7u8; 64];
    for _ in 0..ECHOES {
        stream.write_all(&bytes).await.expect("write");
        stream.read_exact(&mut bytes).await.expect("read");
        progress.fetch_add(1, Ordering::Relaxed);
    }
    done.set(done.get() + 1);
}

async fn flush(path: std::path::PathBuf, done: Rc<Cell<u64>>, progress: Arc<AtomicU64>) {
    let file = DmaFile::create(&path).await.expect("create");
    for round in 0..FLUSHES {
        let mut buffer = file.alloc_dma_buffer(4096);
        buffer.as_bytes_mut().fill(round as u8);
        file.write_at(buffer, round % 64 * 4096).await.expect("direct write");
        file.fdatasync().await.expect("fdatasync");
        progress.fetch_add(1, Ordering::Relaxed);
    }
    file.close().await.expect("close");
    done.set(done.get() + 1);
}

#[test]
fn no_wake_is_lost_under_contention() {
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(AtomicU64::new(0));
    let hogs = busy_threads(&stop);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("folder");
    let path = folder.path().join("flushes");
    let counter = Arc::clone(&progress);
    let finished = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&finished);
    let executor = executor_builder("stress", None, Duration::ZERO).spawn(move || async move {
        let done = Rc::new(Cell::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        glommio::spawn_local(async move {
            while let Ok(stream) = listener.accept().await {
                stream.set_nodelay(true).expect("nodelay");
                glommio::spawn_local(echo(stream)).detach();
            }
        })
        .detach();
        for _ in 0..2 {
            glommio::spawn_local(ask(address, Rc::clone(&done), Arc::clone(&counter))).detach();
        }
        glommio::spawn_local(flush(path, Rc::clone(&done), Arc::clone(&counter))).detach();
        for _ in 0..TICKS {
            sleep(Duration::from_millis(2)).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
        while done.get() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        flag.store(true, Ordering::Relaxed);
    });
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => panic!("the executor needs io_uring: {error}"),
    };
    let (mut last, mut since) = (u64::MAX, Instant::now());
    while !finished.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        let now = progress.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < HANG, "the executor hangs after {now} operations");
    }
    stop.store(true, Ordering::Relaxed);
    executor.join().expect("executor");
    hogs.into_iter().for_each(|hog| hog.join().expect("busy thread"));
    assert_eq!(progress.load(Ordering::Relaxed), 2 * ECHOES + FLUSHES + TICKS);
}
