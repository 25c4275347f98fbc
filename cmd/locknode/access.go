package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/rights"
)

// An access token is a secret. A command reads it from a file or the environment, and there is
// no flag with it: every user of the machine can read command lines.

// accessFlags adds the flags for the access token. The environment is read by accessEnvironment.
func (a *app) accessFlags(c *cobra.Command) {
	c.Flags().StringVar(&a.tokenFile, "token-file", "", "file with the access token, where the cluster needs one (LOCKNODE_TOKEN_FILE, or the token itself in LOCKNODE_TOKEN)")
	c.Flags().BoolVar(&a.plainToken, "insecure-token", false, "send the access token in plain text to other machines as well")
}

// accessEnvironment reads the access token, so that a fault in it is reported before anything
// is sent.
func (a *app) accessEnvironment(c *cobra.Command) error {
	if err := notEmpty(c, "token-file"); err != nil {
		return err
	}
	path, source := a.tokenFile, "--token-file"
	secret := ""
	if path == "" {
		path, secret = a.variable("LOCKNODE_TOKEN_FILE"), a.variable("LOCKNODE_TOKEN")
		source = "LOCKNODE_TOKEN_FILE"
		if path != "" && secret != "" {
			return usageError("LOCKNODE_TOKEN, LOCKNODE_TOKEN_FILE: are both set, only one may be")
		}
	}
	switch {
	case path != "":
		read, open, err := readTokenFile(path)
		if err != nil {
			return hinted(usageError("%s: is %q, must be a file with an access token: %w", source, path, err), "`locknode token create NAME --out FILE` makes one")
		}
		if open {
			a.say("warning: every user of this machine can read the access token: chmod 600 %s", path)
		}
		a.secret = (&tokenFile{path: path, last: read}).get
	case secret != "":
		secret = strings.TrimSpace(secret)
		if err := checkSecret(secret); err != nil {
			return hinted(usageError("LOCKNODE_TOKEN: %w", err), "the fencing token of a lock is in LOCKNODE_FENCING_TOKEN")
		}
		a.secret = func() string { return secret }
	}
	return nil
}

// variable returns a variable of the environment, empty if it is not set.
func (a *app) variable(name string) string {
	if v, ok := a.lookup(name); ok {
		return v
	}
	return ""
}

// access returns the options of a client with an access token, if there is one.
func (a *app) access() []client.Option {
	if a.secret == nil {
		return nil
	}
	opts := []client.Option{client.Token(a.secret)}
	if a.plainToken {
		opts = append(opts, client.PlainTextToken())
	}
	return opts
}

// checkSecret finds what cannot be an access token, and never repeats it.
func checkSecret(secret string) error {
	if secret == "" {
		return errors.New("access token: is empty")
	}
	_, err := rights.HashOf(secret)
	return err
}

// readTokenFile returns the access token in a file, and whether every user of the machine can
// read it.
func readTokenFile(path string) (secret string, open bool, err error) {
	const most = 1 << 10 // a file with an access token is shorter
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", false, err
	case !info.Mode().IsRegular():
		return "", false, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return "", false, err
	case len(b) > most:
		return "", false, fmt.Errorf("it is longer than %d bytes", most)
	}
	secret = strings.TrimSpace(string(b))
	return secret, runtime.GOOS != "windows" && info.Mode()&0o004 != 0, checkSecret(secret)
}

// tokenFile is a file with an access token that may be replaced while the program runs.
type tokenFile struct {
	path string

	mu   sync.Mutex // guards last
	last string
}

// get reads the file again. While it cannot be read, or has no access token because somebody is
// about to write it, the one before stays in use.
func (f *tokenFile) get() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if secret, _, err := readTokenFile(f.path); err == nil {
		f.last = secret
	}
	return f.last
}

// authSettings are the settings of a node for rights.
func authSettings() []*setting {
	return []*setting{
		text("auth.mode", "whether callers need rights: off, log (nothing is refused, and what required would refuse is logged) or required", "off",
			func(c *serveConfig) *string { return &c.node.Auth.Mode }, oneOf("off", "log", "required")),
		{key: "auth.open", kind: "word", list: true,
			usage: "what is answered without rights when auth.mode is required: metrics, status, members, reflection; may be given several times",
			set: func(c *serveConfig, values []string) error {
				c.node.Auth.Open = values
				return each(values, oneOf("metrics", "status", "members", "reflection"))
			}},
	}
}
