//! A folder of pictures of one size: all in it, or one sub-folder a class. For measuring, pictures of any sizes in any
//! folders.
//!
//! Pictures are taken in the order of their names, classes are numbered in the order of theirs. Hidden files
//! are passed over; anything else that is not a picture is an error, so that no data is left out in silence.

use std::path::{Path, PathBuf};

use ndarray::{Array3, Array4, Axis};
use rayon::prelude::*;

use super::picture::{Channels, decode};
use super::source::read_file;
use crate::error::Place;
use crate::{Error, Images, Result};

/// The pictures of a folder, and the names of the classes (none if the folder is flat).
///
/// # Errors
/// If there are no pictures, the folder mixes files and sub-folders, or a file is not a picture or has
/// another size than the first one.
pub fn read_folder(
    directory: &Path,
    channels: Channels,
    background: [u8; 3],
) -> Result<(Images, Vec<String>)> {
    let (folders, flat): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(directory)?.into_iter().partition(|path| path.is_dir());
    if let (Some(folder), Some(file)) = (folders.first(), flat.first()) {
        let found = format!("file {} beside folder {}", file.display(), folder.display());
        return Err(Error::malformed(directory, Place::File, "pictures, or one folder a class", found));
    }
    let mut files: Vec<PathBuf> = flat;
    let mut labels = Vec::new();
    for (class, folder) in folders.iter().enumerate() {
        let members = entries(folder)?;
        labels.extend(std::iter::repeat_n(class as u32, members.len()));
        files.extend(members);
    }
    let name = |folder: &PathBuf| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let classes: Vec<String> = folders.iter().map(name).collect();
    let images = Images::new(
        stack(&files, channels, background, directory)?,
        (!classes.is_empty()).then_some(labels),
    )?;
    let images = if classes.is_empty() { images } else { images.with_classes(classes.len())? };
    Ok((images, classes))
}

/// Given pictures, in the order given.
///
/// # Errors
/// If there are none, or a file is not a picture or has another size than the first one.
pub fn read_pictures(files: &[PathBuf], channels: Channels, background: [u8; 3]) -> Result<Images> {
    let first = files.first().map_or_else(|| Path::new("pictures"), PathBuf::as_path);
    Images::new(stack(files, channels, background, first)?, None)
}

/// The pictures of a folder and of all folders in it, by name; what is hidden is passed over, and the number of other files
/// that are no pictures by their name is told.
///
/// # Errors
/// If there are none, or a folder cannot be read.
pub fn find_pictures(directory: &Path) -> Result<(Vec<PathBuf>, usize)> {
    let (mut files, mut others) = (Vec::new(), 0);
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            let name = path.extension().unwrap_or_default().to_ascii_lowercase();
            match name.to_str() {
                _ if path.is_dir() => folders.push(path),
                Some("png" | "jpg" | "jpeg" | "webp") => files.push(path),
                _ => others += 1,
            }
        }
    }
    if files.is_empty() {
        return Err(Error::malformed(directory, Place::File, "PNG, JPEG or WebP pictures", "none"));
    }
    files.sort();
    Ok((files, others))
}

/// Pictures `[C, H, W]`, each of its own size, in the order given.
///
/// # Errors
/// If a file is not a picture.
pub fn decode_pictures(
    files: &[PathBuf],
    channels: Channels,
    background: [u8; 3],
) -> Result<Vec<Array3<u8>>> {
    let open = |file: &PathBuf| decode(&read_file(file)?, channels, background, file, Place::File);
    files.par_iter().map(open).collect()
}

/// What is in a folder and not hidden, by name.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let visible = listed
        .map_err(Error::io(directory))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> = visible.map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// All pictures as one array `[N, C, H, W]`.
fn stack(files: &[PathBuf], channels: Channels, background: [u8; 3], directory: &Path) -> Result<Array4<u8>> {
    let open = |file: &PathBuf| decode(&read_file(file)?, channels, background, file, Place::File);
    let (first, rest) = files
        .split_first()
        .ok_or_else(|| Error::malformed(directory, Place::File, "PNG, JPEG or WebP pictures", "none"))?;
    let first_picture = open(first)?;
    let size = first_picture.dim();
    let same_size = |file: &PathBuf| -> Result<Array3<u8>> {
        let picture = open(file)?;
        if picture.dim() == size {
            return Ok(picture);
        }
        let expected = format!("{}×{} pixels, as {} has", size.2, size.1, first.display());
        let found = format!("{}×{}", picture.dim().2, picture.dim().1);
        Err(Error::malformed(file, Place::File, expected, found))
    };
    let mut pixels = Array4::zeros((0, size.0, size.1, size.2));
    let pictures: Vec<Array3<u8>> = rest.par_iter().map(same_size).collect::<Result<_>>()?;
    for picture in std::iter::once(first_picture).chain(pictures) {
        pixels
            .push(Axis(0), picture.view())
            .map_err(|e| Error::malformed(directory, Place::File, "pictures of one size", e.to_string()))?;
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    #[test]
    fn pictures_of_any_size_are_found_at_any_depth() -> Result<()> {
        let directory = temporary()?;
        let root = directory.path();
        let notes = root.join("notes.txt");
        for (name, width, red) in
            [("00/b.png", 3, 30), ("00/a.PNG", 5, 10), ("1/2/c.webp", 4, 20), (".x/d.png", 2, 40)]
        {
            draw(&root.join(name), width, red)?;
        }
        std::fs::write(&notes, "words").map_err(Error::io(&notes))?;
        let (files, others) = find_pictures(root)?;
        assert_eq!((files.len(), others), (3, 1));
        let pictures = decode_pictures(&files, Channels::Rgb, [255; 3])?;
        let seen: Vec<_> = pictures.iter().map(|p| (p.dim(), p[[0, 0, 0]])).collect();
        assert_eq!(seen, [((3, 2, 5), 10), ((3, 2, 3), 30), ((3, 2, 4), 20)]);
        assert!(find_pictures(&root.join("1/3")).is_err());
        std::fs::remove_dir_all(root.join("1")).map_err(Error::io(root))?;
        std::fs::remove_dir_all(root.join("00")).map_err(Error::io(root))?;
        assert!(find_pictures(root).is_err_and(|e| e.to_string().contains("none")));
        Ok(())
    }
    use image::{Rgb, RgbImage};

    fn temporary() -> Result<tempfile::TempDir> {
        tempfile::tempdir().map_err(Error::io(Path::new("temporary directory")))
    }

    fn draw(path: &Path, width: u32, red: u8) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        RgbImage::from_pixel(width, 2, Rgb([red, 0, 0])).save(path).map_err(Error::Picture)
    }

    #[test]
    fn classes_are_folders_in_order() -> Result<()> {
        let directory = temporary()?;
        let root = directory.path();
        draw(&root.join("dog/b.png"), 3, 30)?;
        draw(&root.join("cat/z.webp"), 3, 20)?;
        draw(&root.join("cat/a.png"), 3, 10)?;
        std::fs::write(root.join(".hidden"), b"x").map_err(Error::io(root))?;
        let (images, classes) = read_folder(root, Channels::Rgb, [0; 3])?;
        assert_eq!(
            (classes, images.classes(), images.shape()),
            (vec!["cat".into(), "dog".into()], 2, [3, 2, 3].as_slice())
        );
        let reds: Vec<u8> = (0..3).map(|i| Ok(images.pixels(i)?[[0, 1, 2]])).collect::<Result<_>>()?;
        let labels: Vec<Option<u32>> = (0..3).map(|i| images.label(i)).collect::<Result<_>>()?;
        assert_eq!((reds, labels), (vec![10, 20, 30], vec![Some(0), Some(0), Some(1)]));
        let (flat, none) = read_folder(&root.join("cat"), Channels::Grey, [0; 3])?;
        assert_eq!((flat.len(), flat.classes(), none.len(), flat.shape()), (2, 0, 0, [1, 2, 3].as_slice()));
        Ok(())
    }

    #[test]
    fn errors_name_the_file() -> Result<()> {
        let directory = temporary()?;
        let root = directory.path();
        let message =
            || read_folder(root, Channels::Rgb, [0; 3]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message().contains("expected PNG, JPEG or WebP pictures, found none"), "{}", message());
        draw(&root.join("a.png"), 3, 1)?;
        draw(&root.join("b.png"), 4, 1)?;
        assert!(
            message().contains("b.png: expected 3×2 pixels, as ") && message().ends_with("found 4×2"),
            "{}",
            message()
        );
        std::fs::write(root.join("b.png"), b"text").map_err(Error::io(root))?;
        assert!(message().contains("b.png: expected a PNG, JPEG or WebP picture"), "{}", message());
        draw(&root.join("sub/c.png"), 3, 1)?;
        assert!(message().contains("beside folder"), "{}", message());
        assert!(matches!(read_folder(&root.join("none"), Channels::Rgb, [0; 3]), Err(Error::Io { .. })));
        Ok(())
    }
}
