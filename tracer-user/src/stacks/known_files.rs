//! Files already read: what discovery found in an interpreter's ELF file, by the file's identity.

use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;

use super::image::ImageKey;

const FILES_MAX: usize = 64;

/// A file in which nothing was found is not read again either. Full, it begins anew.
pub(super) struct KnownFiles<Content> {
    files: HashMap<ImageKey, Option<Rc<Content>>>,
}

impl<Content> Default for KnownFiles<Content> {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
        }
    }
}

impl<Content> KnownFiles<Content> {
    /// What `read` finds in the file, or found when it was seen first.
    pub(super) fn get(
        &mut self,
        file: File,
        read: impl FnOnce(File) -> Option<Content>,
    ) -> Option<Rc<Content>> {
        let key = ImageKey::of(&file.metadata().ok()?);
        if let Some(known) = self.files.get(&key) {
            return known.clone();
        }
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        let content = read(file).map(Rc::new);
        self.files.insert(key, content.clone());
        content
    }
}
