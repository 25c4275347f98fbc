package simdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// errNotFound has the text that raft compares with.
var errNotFound = errors.New("not found")

// stableStore is a raft.StableStore.
type stableStore struct{ *life }

// Set stores a value.
func (s stableStore) Set(key, val []byte) error {
	k, v := string(key), append([]byte{}, val...)
	return s.write(func(*content) (op, error) {
		return func(c *content) { c.stable[k] = v }, nil
	})
}

// Get returns "not found" for a key that was never set.
func (s stableStore) Get(key []byte) (val []byte, err error) {
	err = s.read(func(c *content) error {
		v, ok := c.stable[string(key)]
		if !ok {
			return errNotFound
		}
		val = bytes.Clone(v)
		return nil
	})
	return val, err
}

// SetUint64 stores a number.
func (s stableStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 returns "not found" for a key that was never set.
func (s stableStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("value of %q: has %d bytes, want 8", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
