package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
)

// The gossip key is a secret. It is read from a file or the environment, and refused on the
// command line, which every user of the machine can read. It is never printed.

var errGossipKey = errors.New("must be 16, 24 or 32 bytes in base64, such as `locknode gossip-key generate` prints")

func setGossipKey(c *serveConfig, values []string) (err error) {
	if values[0] == "" {
		return nil
	}
	c.gossipKeyGiven = true
	c.node.GossipKey, err = gossipKey(values[0])
	return err
}

func gossipKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err == nil && (len(key) == 16 || len(key) == 24 || len(key) == 32) {
		return key, nil
	}
	return nil, errGossipKey
}

// maxKeyFile bounds how much of the file is read. A file with a key is shorter.
const maxKeyFile = 1 << 10

func setGossipKeyFile(c *serveConfig, values []string) error {
	path := values[0]
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return errors.New("must be a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("must be a file that this user can read: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return fmt.Errorf("must be a file that this user can read: %w", err)
	}
	key, err := gossipKey(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("its content %w", err)
	}
	c.gossipKeyFile, c.node.GossipKey = path, key
	return nil
}

func oneGossipKey(c serveConfig) error {
	if c.gossipKeyGiven && c.gossipKeyFile != "" {
		return &fault{source: "gossip_key, gossip_key_file", allowed: errors.New("are both set, only one may be")}
	}
	return nil
}

// warnOfOpenKey logs a warning if every user of the machine can read the file with the key.
func warnOfOpenKey(log *slog.Logger, all []resolved) {
	for _, r := range all {
		path := ""
		switch value := strings.Join(r.values, ""); {
		case value == "":
		case r.key == "gossip_key_file":
			path = value
		case r.secret:
			path = r.file
		}
		if path == "" || runtime.GOOS == "windows" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode()&0o004 != 0 {
			log.Warn("the file with the gossip key can be read by every user of this machine: chmod o-r it", "file", path, "mode", info.Mode().String())
		}
	}
}
