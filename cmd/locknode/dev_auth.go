package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/locknode/locknode/client"
)

// rootToken makes an access token with all rights, and returns the file that it is in. With
// data that is kept that is the one of the start before.
func (d *devCluster) rootToken(ctx context.Context) (path string, err error) {
	if path, err = filepath.Abs(filepath.Join(d.dir, "root.token")); err != nil {
		return "", err
	}
	if _, _, err := readTokenFile(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	c := d.nodes[0].Client() // in the process of a node: it needs no rights
	defer closeQuietly(c)
	all := client.Rule{Rights: []client.Right{client.RightRead, client.RightLock, client.RightForce, client.RightAdmin}}
	root := client.Policy{Name: rootPolicy, For: []string{"token:root"}, Rules: []client.Rule{all}}
	if err := afterUpgrade(ctx, func() error { _, err := c.ChangePolicies(ctx, []client.Policy{root}, nil, 0); return err }); err != nil {
		return "", err
	}
	file, err := newSecretFile(path)
	if err != nil {
		return "", err
	}
	defer file.discard()
	_, secret, err := c.CreateAccessToken(ctx, client.NewAccessToken{Name: "root"})
	if err != nil {
		return "", err
	}
	return path, file.write(secret)
}

// afterUpgrade runs a call again while the table of a new cluster is at a feature level that
// does not know it: the leader raises the level once all members have said that they know more.
func afterUpgrade(ctx context.Context, call func() error) error {
	const most = 30 * time.Second
	for began := time.Now(); ; {
		err := call()
		if err == nil || time.Since(began) > most {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
