package disk

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Nobody but its owner reads what a node stores. The node makes its files with 0600 and its
// folders with 0700, whatever the umask; raft and bbolt make theirs with 0644 and 0755, so
// those are changed right after. What an earlier version or a backup has left is changed at
// the start. The data directory itself may have been made by others (systemd, a volume whose
// group is how the node gets in): it keeps the rights of its owner and group.

const (
	groupAndOthers fs.FileMode = 0o077
	others         fs.FileMode = 0o007
)

// ownFiles are the names of what a node keeps in its data directory. More of its own begin
// with replacedPrefix.
var ownFiles = []string{
	identityFile, identityFile + tmpSuffix, "lock", stableFile, logDir, logFile, markFile,
	"seeds.json", "seeds.json" + tmpSuffix, "gossip-keys.json", "gossip-keys.json" + tmpSuffix, snapshotDir, damagedDir,
}

func isOwnFile(name string) bool {
	return slices.Contains(ownFiles, name) || strings.HasPrefix(name, replacedPrefix)
}

// closeToOthers takes the rights of others off a data directory and all that a node has put
// there. It refuses nothing: what cannot be changed, because another user owns it, is
// logged. The files of others are left alone, and so are then the rights of the directory:
// somebody may have named a home or /tmp.
func closeToOthers(dir string, log *slog.Logger) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the next read returns the error
	}
	var c closing
	foreign := ""
	for _, e := range entries {
		switch {
		case isOwnFile(e.Name()):
			c.tree(filepath.Join(dir, e.Name()))
		case e.Name() != "lost+found":
			foreign = e.Name()
		}
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil || info.Mode()&others == 0:
	case foreign != "" || info.Mode()&fs.ModeSticky != 0:
		log.Warn("the data directory is open to other users, and holds more than the node's files, so its rights stay as they are; the node's own files are closed",
			"data_dir", dir, "mode", info.Mode().String(), "also_there", foreign)
	default:
		c.take(dir, info.Mode(), others)
	}
	if err == nil && foreign == "" && info.Mode()&groupAndOthers&^others != 0 && runtime.GOOS != "windows" {
		log.Info("the data directory is open to its group, and the files in it are not: chmod g-rwx it unless the node needs the group to get in",
			"data_dir", dir, "mode", info.Mode().String())
	}
	if c.changed > 0 {
		log.Info("what the node has stored was open to other users and is not any more", "data_dir", dir, "changed", c.changed, "first", c.first)
	}
	if c.err != nil {
		log.Warn("what the node has stored is open to other users, and cannot be closed", "data_dir", dir, "err", c.err)
	}
}

// closing counts what was changed.
type closing struct {
	changed int
	first   string
	err     error // the first
}

// tree closes a file, or a folder and what is in it. Of links only path itself is followed.
func (c *closing) tree(path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return nil // the part that needs it reports what cannot be read
		}
		if info, err := e.Info(); err == nil {
			c.take(path, info.Mode(), groupAndOthers)
		}
		return nil
	})
}

// take takes rights off a file that has any of them.
func (c *closing) take(path string, mode, rights fs.FileMode) {
	if mode&rights == 0 || runtime.GOOS == "windows" { // where a mode says only who may write
		return
	}
	switch err := os.Chmod(path, mode&^rights); {
	case err == nil:
		c.changed++
		if c.first == "" {
			c.first = path
		}
	case c.err == nil && !errors.Is(err, fs.ErrNotExist):
		c.err = err
	}
}

// closeFile takes the rights of others off a file or folder that a library has made. Where
// that fails the start logs it, once.
func closeFile(path string) {
	if info, err := os.Lstat(path); err == nil {
		var c closing
		c.take(path, info.Mode(), groupAndOthers)
	}
}
