package gossipkeys

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync"
)

// Options say where a [Store] gets its first ring.
type Options struct {
	// Dir is the data directory; empty: nothing is written.
	Dir string
	// Configured is the key of the settings; empty: there is none.
	Configured []byte
	// MakeUp has a node without any key make one up. It is for nodes that exchange keys.
	MakeUp bool
	// Formed says that the node belongs to a cluster.
	Formed bool
}

// Store is the ring that a node uses. All methods are safe for concurrent use.
type Store struct {
	path string

	mu    sync.Mutex // guards what follows, and is held while a ring is written and put to use
	ring  Ring
	taken Fingerprint
	use   func(Ring) error // nil: nobody uses the keys yet
}

// Open reads the ring of a data directory. Without one the node begins with the configured key, or
// makes one up. A configured key that the node has not seen yet, in a directory that has a ring, is
// installed: it decrypts. One that was taken before is not taken again, because it may have been
// removed since. If there is neither a key nor a reason to make one up, Open returns nil:
// gossip is in plain text.
//
// The error names the file, and says what to do.
func Open(o Options) (*Store, error) {
	s := &Store{}
	if len(o.Configured) == 0 && !o.MakeUp {
		return nil, nil
	}
	var c content
	var there bool
	if o.Dir != "" {
		s.path = filepath.Join(o.Dir, FileName)
		var err error
		if c, there, err = read(s.path); err != nil {
			return nil, fmt.Errorf("gossip keys: %w", err)
		}
	}
	ring, taken := c.ring(), c.Taken
	if !there {
		ring = MadeUp()
	}
	if f := FingerprintOf(o.Configured); len(o.Configured) > 0 && f != taken {
		if err := CheckKey(o.Configured); err != nil {
			return nil, err
		}
		taken = f
		if !there {
			ring = Ring{Given: true, Keys: [][]byte{bytes.Clone(o.Configured)}}
			if o.Formed {
				ring = ring.ofCluster()
			}
		} else {
			var err error
			if ring, err = ring.With(o.Configured, 0); err != nil {
				return nil, err
			}
		}
	}
	if there && taken == c.Taken && ring.Equal(c.ring()) { // a start that changes nothing writes nothing
		s.ring, s.taken = ring, taken
		return s, nil
	}
	return s, s.set(ring, taken)
}

// Use has f called with the ring that is in use, and with each one that replaces it.
func (s *Store) Use(f func(Ring) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use = f
	return f(s.ring)
}

// Ring returns the ring that is in use.
func (s *Store) Ring() Ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ring
}

// set makes a ring what is in use. It is on disk before it is used: a key that others learn
// from this node is not lost by a crash.
func (s *Store) set(r Ring, taken Fingerprint) error {
	if err := r.Check(); err != nil {
		return err
	}
	if s.path != "" {
		if err := write(s.path, r, taken); err != nil {
			return fmt.Errorf("gossip keys: %w", err)
		}
	}
	s.ring, s.taken = r, taken
	if s.use != nil {
		return s.use(r)
	}
	return nil
}

// change replaces the ring by what f makes of it. It returns the ring that is in use then.
func (s *Store) change(f func(Ring) (Ring, error)) (Ring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := f(s.ring)
	if err != nil || r.Equal(s.ring) {
		return s.ring, err
	}
	err = s.set(r, s.taken)
	return s.ring, err
}

// Merge goes on with the newer of two rings. changed says that it is the other one.
func (s *Store) Merge(other Ring) (ring Ring, changed bool, err error) {
	if err := other.Check(); err != nil {
		return s.Ring(), false, err
	}
	ring, err = s.change(func(r Ring) (Ring, error) {
		if !other.NewerThan(r) {
			return r, nil
		}
		changed = true
		return other, nil
	})
	return ring, changed && err == nil, err
}

// Install adds a key that decrypts, in a ring of at least this version.
func (s *Store) Install(key []byte, version uint64) (Ring, error) {
	return s.change(func(r Ring) (Ring, error) { return r.With(key, version) })
}

// TakeConfigured is Install with the key of the settings. fresh says that it was not the one that
// was taken last, which is not taken again.
func (s *Store) TakeConfigured(key []byte) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := FingerprintOf(key)
	if f == s.taken {
		return false, nil
	}
	r, err := s.ring.With(key, 0)
	if err != nil {
		return false, err
	}
	return true, s.set(r, f)
}

// Encrypt has a key that is installed encrypt, in a ring of at least this version.
func (s *Store) Encrypt(f Fingerprint, version uint64) (Ring, error) {
	return s.change(func(r Ring) (Ring, error) { return r.Using(f, version) })
}

// Remove removes a key that does not encrypt, in a ring of at least this version.
func (s *Store) Remove(f Fingerprint, version uint64) (Ring, error) {
	return s.change(func(r Ring) (Ring, error) { return r.Without(f, version) })
}

// Formed says that the node belongs to a cluster now, with the keys that it has.
func (s *Store) Formed() error {
	_, err := s.change(func(r Ring) (Ring, error) { return r.ofCluster(), nil })
	return err
}
