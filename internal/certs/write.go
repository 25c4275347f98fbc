package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// File is a file to be written.
type File struct {
	Path string
	Data []byte
	Mode fs.FileMode // ModeKey or ModeCert
}

// Modes of files.
const (
	ModeKey  fs.FileMode = 0o600 // whoever can read a key can use it
	ModeCert fs.FileMode = 0o644 // certificates are sent to everybody who connects
)

// WriteFiles writes all files, or none: after an error those that it has made are removed. It
// returns when they are on disk. It makes their directories, for their user alone.
//
// Without replace it is an error if one of them exists, and none is changed. With replace each
// file changes at once, one after the other, and keeps its owner and group.
func WriteFiles(replace bool, files ...File) error {
	if err := checkTargets(replace, files); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
			return fmt.Errorf("make the directory of %s: %w", f.Path, err)
		}
	}
	write := writeNew
	if replace {
		write = writeOver
	}
	if err := write(files); err != nil {
		return err
	}
	synced := map[string]bool{}
	for _, f := range files {
		dir := filepath.Dir(f.Path)
		if synced[dir] {
			continue
		}
		synced[dir] = true
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("%s: is written, but may be gone after a loss of power: %w", f.Path, err)
		}
	}
	return nil
}

// checkTargets reports every file that is in the way.
func checkTargets(replace bool, files []File) error {
	var faults []error
	for _, f := range files {
		info, err := os.Lstat(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: %w", f.Path, cannotRead(err)))
		case !replace:
			faults = append(faults, fmt.Errorf("%s: %w", f.Path, fs.ErrExist))
		case !info.Mode().IsRegular():
			faults = append(faults, fmt.Errorf("%s: is no regular file, only one can be replaced", f.Path))
		}
	}
	return errors.Join(faults...)
}

// writeNew creates the files at their places.
func writeNew(files []File) error {
	for i, f := range files {
		made, err := writeFile(f.Path, f)
		if err == nil {
			continue
		}
		if !made { // it belongs to somebody else
			i--
		}
		for _, mine := range files[:i+1] {
			err = errors.Join(err, os.Remove(mine.Path))
		}
		return err
	}
	return nil
}

// writeOver writes the files beside their places first.
func writeOver(files []File) (err error) {
	beside := make([]string, 0, len(files))
	defer func() {
		if err == nil {
			return
		}
		for _, path := range beside {
			if e := os.Remove(path); !errors.Is(e, fs.ErrNotExist) { // it is in its place
				err = errors.Join(err, e)
			}
		}
	}()
	for _, f := range files {
		path := fmt.Sprintf("%s.new-%d", f.Path, os.Getpid())
		made, err := writeFile(path, f)
		if made {
			beside = append(beside, path)
		}
		if err == nil {
			err = keep(path, f)
		}
		if err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := os.Rename(beside[i], f.Path); err != nil {
			return fmt.Errorf("replace %s: %w", f.Path, err)
		}
	}
	return nil
}

// keep gives the file at path, which will replace f, the owner and group of what it replaces: a
// key that root replaces is read by the user of the node. A key that its group could read stays so.
func keep(path string, f File) error {
	old, err := os.Lstat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = own(path, old)
	}
	if err == nil && f.Mode == ModeKey && old.Mode().Perm() == 0o640 {
		err = os.Chmod(path, 0o640)
	}
	if err != nil {
		return fmt.Errorf("replace %s by a file of the same owner: %w: remove the old file, or do it as root or as its owner", f.Path, cannotRead(err))
	}
	return nil
}

// writeFile makes a new file, and returns whether there is one now that it has made.
func writeFile(path string, f File) (made bool, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode)
	if err != nil {
		return false, fmt.Errorf("make %s: %w", path, err)
	}
	_, err = file.Write(f.Data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return true, fmt.Errorf("write %s: %w", path, err)
	}
	return true, nil
}

// syncDir makes the entries of a directory durable, where that is possible.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
