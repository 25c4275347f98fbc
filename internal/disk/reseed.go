package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// replacedPrefix begins the name of the folder that keeps what was replaced.
const replacedPrefix = "replaced-"

// dataFiles are what a node keeps in its directory, besides its identity.
var dataFiles = []string{stableFile, logDir, logFile, markFile, snapshotDir, damagedDir, identityFile + ".tmp"}

// Reseed takes the data out of a directory that a node must not run on any more,
// and leaves one with which the node joins its cluster anew. Close gives the
// directory back.
type Reseed struct {
	// Identity is what the directory says, zero if it cannot be read, and Problem
	// why not.
	Identity Identity
	Problem  error

	dir  string
	lock io.Closer
}

// BeginReseed takes hold of a directory and changes nothing in it. It returns
// ErrInUse while a node runs on it, and an error if it holds no node's data.
func BeginReseed(dir string) (*Reseed, error) {
	if is, err := isDataDir(dir); err != nil {
		return nil, asSystemError(err)
	} else if !is {
		return nil, fmt.Errorf("%s holds no data of a node", dir)
	}
	lock, err := lockDir(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, asSystemError(err)
	}
	r := &Reseed{dir: dir, lock: lock}
	if r.Identity, r.Problem = readIdentity(dir); r.Problem != nil {
		r.Identity = Identity{}
		// Data that only the system keeps from being read are not to be thrown away. A
		// disk with I/O errors may be past repair.
		if errno, ok := systemErrno(r.Problem); ok && errno != syscall.EIO {
			return nil, errors.Join(asSystemError(r.Problem), lock.Close())
		}
	}
	return r, nil
}

// Close may be called at any time; what Finish has done remains.
func (r *Reseed) Close() error { return r.lock.Close() }

func isDataDir(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name() == identityFile || strings.HasPrefix(e.Name(), replacedPrefix) {
			return true, nil
		}
		for _, name := range dataFiles {
			if e.Name() == name {
				return true, nil
			}
		}
	}
	return false, nil
}

// Finish moves the data to a folder in the directory, whose path it returns, or
// deletes them, and writes the identity of a node that belongs to the cluster and
// has nothing yet: it can join that cluster and never form another one.
//
// The member of this ID must have been removed from the cluster's configuration
// before: what it promised is forgotten here.
//
// The identity is written last. After a crash in between the directory is refused
// as before, and the whole can be done again.
func (r *Reseed) Finish(nodeID, clusterID string, remove bool) (movedTo string, err error) {
	next := Identity{
		Version: identityVersion, NodeID: nodeID, ClusterID: clusterID,
		LogStore: r.logStore(), Created: time.Now().UTC(), Reseeded: true,
	}
	if remove {
		for _, name := range dataFiles {
			if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
				return "", err
			}
		}
	} else if movedTo, err = r.moveAside(); err != nil {
		return movedTo, fmt.Errorf("move the data of %s aside: %w", r.dir, err)
	}
	if err := writeIdentity(r.dir, next); err != nil {
		return movedTo, fmt.Errorf("write the new identity: %w", err)
	}
	return movedTo, nil
}

// moveAside moves the data and copies the identity.
func (r *Reseed) moveAside() (to string, err error) {
	if to, err = r.newFolder(); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(r.dir, identityFile))
	switch {
	case err == nil:
		err = writeFileAtomic(filepath.Join(to, identityFile), b)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return to, err
	}
	for _, name := range dataFiles {
		err := os.Rename(filepath.Join(r.dir, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return to, err
		}
	}
	return to, errors.Join(syncDir(to), syncDir(r.dir))
}

// newFolder makes a folder that was not there.
func (r *Reseed) newFolder() (string, error) {
	base := filepath.Join(r.dir, replacedPrefix+time.Now().UTC().Format("20060102T150405Z"))
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		if err := os.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
}

// logStore is what the directory was made with, as far as it can be seen; empty
// leaves the choice to the next start.
func (r *Reseed) logStore() string {
	if r.Identity.LogStore != "" {
		return r.Identity.LogStore
	}
	if there, err := exists(filepath.Join(r.dir, logDir)); err == nil && there {
		return LogStoreWAL
	}
	if there, err := exists(filepath.Join(r.dir, logFile)); err == nil && there {
		return LogStoreBolt
	}
	return ""
}
