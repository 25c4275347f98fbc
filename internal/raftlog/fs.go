package raftlog

import (
	"errors"
	"fmt"
	"os"
)

// FS is what the log needs of a file system. [OS] is the one of the system; tests bring a
// disk that loses power.
type FS interface {
	MkdirAll(dir string) error
	// ReadDir returns the names in dir, sorted.
	ReadDir(dir string) ([]string, error)
	// Open opens a file that is there, for reading and writing.
	Open(path string) (File, error)
	// Create makes an empty file, or empties the one that is there.
	Create(path string) (File, error)
	// Rename replaces a file that has the new name.
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in dir durable: what was created, renamed and removed.
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	ReadAt(b []byte, offset int64) (int, error)
	WriteAt(b []byte, offset int64) (int, error)
	// Sync makes what was written durable, and the size of the file.
	Sync() error
	Size() (int64, error)
	Close() error
}

// OS is the file system of the operating system. Files are made with 0600, folders with
// 0700.
type OS struct{}

// MkdirAll is part of [FS].
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// ReadDir is part of [FS].
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Open is part of [FS].
func (OS) Open(path string) (File, error) { return openFile(path, os.O_RDWR) }

// Create is part of [FS].
func (OS) Create(path string) (File, error) {
	return openFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Rename is part of [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is part of [FS].
func (OS) Remove(path string) error { return os.Remove(path) }

// SyncDir is part of [FS].
func (OS) SyncDir(dir string) error {
	if !dirsSync {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func openFile(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// osFile is a File of the system.
type osFile struct{ *os.File }

// ReadAt is part of [File].
func (f osFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(b, at)
	return n, nameless(err)
}

// WriteAt is part of [File].
func (f osFile) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	return n, nameless(err)
}

// nameless takes the path out of an error: the file was renamed since it was opened.
func nameless(err error) error {
	var named *os.PathError
	if errors.As(err, &named) {
		return fmt.Errorf("%s: %w", named.Op, named.Err)
	}
	return err
}

// Sync is fdatasync on Linux; on macOS it is F_FULLFSYNC, which is what os.File.Sync does
// there, because fsync leaves the data in the cache of the disk.
func (f osFile) Sync() error { return nameless(syncData(f.File)) }

// Size is part of [File].
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
