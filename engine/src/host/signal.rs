//! A flag that one task of an executor waits for and others of the same executor raise.
//!
//! Off the data path in itself; it starts every turn.
//! Invariants: raised while nobody waits, it is seen by the next wait; it never crosses a thread (`Rc` inside).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Default)]
struct Inner {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Shared by clones within one executor.
#[derive(Clone, Default)]
pub(crate) struct Signal(Rc<Inner>);

impl Signal {
    /// Raises the flag and wakes the waiting task.
    pub(crate) fn raise(&self) {
        if !self.0.raised.replace(true)
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until the flag is raised and lowers it.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.0.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.0.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
