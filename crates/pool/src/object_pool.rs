use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

/// What a pooled object does before its next use.
pub trait Reset {
    /// Forgets the last use and keeps the storage.
    fn reset(&mut self);
}

impl<T> Reset for Vec<T> {
    fn reset(&mut self) {
        self.clear();
    }
}

impl<T: Reset + ?Sized> Reset for Box<T> {
    fn reset(&mut self) {
        (**self).reset();
    }
}

/// Keeps up to a fixed number of idle objects for reuse, shared by any number of threads.
///
/// ```
/// use spanwire_pool::ObjectPool;
///
/// let pool = ObjectPool::<Vec<u8>>::new(16);
/// let mut buffer = pool.take();
/// buffer.extend_from_slice(b"spans");
/// drop(buffer); // reset and kept
/// assert!(pool.take().capacity() >= 5);
/// ```
#[derive(Debug)]
pub struct ObjectPool<T> {
    idle: Arc<ArrayQueue<T>>,
}

impl<T> Clone for ObjectPool<T> {
    fn clone(&self) -> Self {
        Self { idle: Arc::clone(&self.idle) }
    }
}

impl<T: Reset + Default> ObjectPool<T> {
    /// A pool that keeps at most `idle_max` objects, at least one.
    #[must_use]
    pub fn new(idle_max: usize) -> Self {
        Self { idle: Arc::new(ArrayQueue::new(idle_max.max(1))) }
    }

    /// An idle object, or a new one.
    pub fn take(&self) -> Pooled<T> {
        let object = self.idle.pop().unwrap_or_default();
        Pooled { object, idle: Arc::clone(&self.idle) }
    }

    /// Objects idle now.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }
}

/// An object on loan; dropping it resets it and gives it back, or frees it where enough are idle.
#[derive(Debug)]
pub struct Pooled<T: Reset + Default> {
    object: T,
    idle: Arc<ArrayQueue<T>>,
}

impl<T: Reset + Default> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Reset + Default> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.object
    }
}

impl<T: Reset + Default> Drop for Pooled<T> {
    fn drop(&mut self) {
        let mut object = std::mem::take(&mut self.object);
        object.reset();
        drop(self.idle.push(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_empty_with_its_storage() {
        let pool = ObjectPool::<Vec<u8>>::new(4);
        pool.take().reserve(1_000);
        let again = pool.take();
        assert!(again.is_empty() && again.capacity() >= 1_000);
    }

    #[test]
    fn no_more_than_the_maximum_is_kept() {
        let pool = ObjectPool::<Vec<u8>>::new(2);
        drop([pool.take(), pool.take(), pool.take()]);
        assert_eq!(pool.idle(), 2);
    }
}
