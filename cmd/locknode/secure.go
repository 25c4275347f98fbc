package main

import (
	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
)

// tlsFiles are the certificates of a command that talks to a cluster in TLS.
type tlsFiles struct{ ca, cert, key string }

// tlsFlags adds the flags for TLS. The environment is read by clientEnvironment.
func (a *app) tlsFlags(c *cobra.Command) {
	c.Flags().StringVar(&a.tls.ca, "tls-ca", "", "use TLS: file with the CA certificates of the nodes (LOCKNODE_TLS_CA)")
	c.Flags().StringVar(&a.tls.cert, "tls-cert", "", "file with this client's certificate, where the nodes need one (LOCKNODE_TLS_CERT)")
	c.Flags().StringVar(&a.tls.key, "tls-key", "", "file with its private key (LOCKNODE_TLS_KEY)")
	a.accessFlags(c)
}

// tlsEnvironment takes the values of flags for TLS that are not given from the environment,
// and checks that they fit each other.
func (a *app) tlsEnvironment(c *cobra.Command) error {
	for _, f := range []struct {
		flag, variable string
		value          *string
	}{{"tls-ca", "LOCKNODE_TLS_CA", &a.tls.ca}, {"tls-cert", "LOCKNODE_TLS_CERT", &a.tls.cert}, {"tls-key", "LOCKNODE_TLS_KEY", &a.tls.key}} {
		if v, ok := a.lookup(f.variable); ok && !c.Flags().Changed(f.flag) {
			*f.value = v
		}
	}
	switch t := a.tls; {
	case (t.cert == "") != (t.key == ""):
		missing := "--tls-cert"
		if t.key == "" {
			missing = "--tls-key"
		}
		return usageError("--tls-cert, --tls-key: %s is missing, must be given with the other one", missing)
	case t.ca == "" && t.cert != "":
		return usageError("--tls-ca: is missing, must be the file with the CA certificates of the nodes")
	}
	return a.accessEnvironment(c)
}

// security returns the options of a client in TLS, and of one with an access token, if there
// are files for it.
func (a *app) security() []client.Option {
	opts := a.access()
	if a.tls.ca == "" {
		return opts
	}
	return append(opts, client.TLSFiles(a.tls.ca, a.tls.cert, a.tls.key))
}

// tlsSettings are the settings for TLS of a node.
func tlsSettings() []*setting {
	path := func(key, usage string, field func(*serveConfig) *string) *setting {
		s := text("tls."+key, usage, "", field)
		s.kind = "path"
		return s
	}
	mode := text("tls.mode", "off, permissive (TLS and plain text, to move a running cluster) or required (TLS only)", "off",
		func(c *serveConfig) *string { return &c.node.TLS.Mode }, oneOf("off", "permissive", "required"))
	return []*setting{
		mode,
		path("ca_file", "PEM file with the CAs that sign the certificates of nodes, and of clients without tls.client_ca_file; read again when it changes",
			func(c *serveConfig) *string { return &c.node.TLS.CAFile }),
		path("cert_file", "PEM file with the certificate of this node, as the command locknode tls makes it; read again when it changes",
			func(c *serveConfig) *string { return &c.node.TLS.CertFile }),
		path("key_file", "PEM file with its private key; only the node's user should be able to read it",
			func(c *serveConfig) *string { return &c.node.TLS.KeyFile }),
		path("client_ca_file", "PEM file with the CAs that sign the certificates of clients, which every client then needs",
			func(c *serveConfig) *string { return &c.node.TLS.ClientCAFile }),
	}
}
