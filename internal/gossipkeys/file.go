package gossipkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FileName is the file of a ring in a data directory.
const FileName = "gossip-keys.json"

// maxFile bounds what is read: eight keys take less than 1 KiB.
const maxFile = 8 << 10

// fileFormat is the format that is written. Another one is refused.
const fileFormat = 1

// content is what is in the file.
type content struct {
	Format  int      `json:"format"`
	Version uint64   `json:"version"`
	Given   bool     `json:"given"`
	Keys    [][]byte `json:"keys"` // base64
	// Taken is the fingerprint of the configured key that was taken last. It is not taken again,
	// because it may have been removed since.
	Taken Fingerprint `json:"taken,omitempty"`
	Sum   uint32      `json:"sum"` // CRC32C of the rest
}

// sum is that of a content whose Sum is 0.
func (c content) sum() uint32 {
	c.Sum = 0
	b, _ := json.Marshal(c) // these types do not fail
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

func (c content) ring() Ring { return Ring{Version: c.Version, Given: c.Given, Keys: c.Keys} }

// decode returns what a file holds. It checks all of it.
func decode(b []byte) (c content, err error) {
	if err := json.Unmarshal(b, &c); err != nil {
		return content{}, fmt.Errorf("is damaged: %w", err)
	}
	switch {
	case c.Format != fileFormat:
		return content{}, fmt.Errorf("has format %d, must have %d: it is damaged, or from another version of locknode", c.Format, fileFormat)
	case c.Sum != c.sum():
		return content{}, errors.New("is damaged: its checksum does not match")
	}
	if err := c.ring().Check(); err != nil {
		return content{}, fmt.Errorf("is damaged: %w", err)
	}
	return c, nil
}

func encode(r Ring, taken Fingerprint) []byte {
	c := content{Format: fileFormat, Version: r.Version, Given: r.Given, Keys: r.Keys, Taken: taken}
	c.Sum = c.sum()
	b, _ := json.MarshalIndent(c, "", "  ") // as in sum
	return append(b, '\n')
}

// read returns what is in the file. there is false if it does not exist.
func read(path string) (c content, there bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		c, err = decode(b)
	}
	if err != nil {
		return c, false, fmt.Errorf("%s: %w; delete it: the node then has the key of its settings, or in TLS gets the keys from the others", path, err)
	}
	return c, true, nil
}

// write replaces the file. After a crash either the old one or the new one is there.
func write(path string, r Ring, taken Fingerprint) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil { // one that a crash has left
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(encode(r, taken))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename durable, on systems that can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync() // not every system can, and then the rename is as durable as it gets there
	return d.Close()
}
