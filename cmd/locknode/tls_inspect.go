package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/internal/certs"
)

// inspectJSON is printed by `tls inspect -o json`.
type inspectJSON struct {
	CAChecked    bool       `json:"ca_checked"` // a CA was given: "usable" includes that it has signed
	Certificates []certJSON `json:"certificates"`
	Keys         []keyJSON  `json:"keys"`
	Faults       []string   `json:"faults"`
}

// certJSON is one certificate. A CA has no "role", and nothing of what follows "signed_by".
type certJSON struct {
	File      string    `json:"file"`
	Place     int       `json:"place"` // in the file, from 1
	Subject   string    `json:"subject"`
	CA        bool      `json:"ca"`
	Role      string    `json:"role,omitempty"`
	Name      string    `json:"name,omitempty"`
	Cluster   string    `json:"cluster,omitempty"`
	URI       string    `json:"uri,omitempty"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	Key       string    `json:"key"`
	Usages    []string  `json:"usages"`
	Hosts     []string  `json:"hosts"`
	NotBefore string    `json:"not_before"`
	NotAfter  string    `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
	KeyFiles  []string  `json:"key_files"`
	SignedBy  []string  `json:"signed_by"`
	AsNode    *fitsJSON `json:"as_node,omitempty"`
	AsClient  *fitsJSON `json:"as_client,omitempty"`
}

// fitsJSON says whether a certificate can be used as something.
type fitsJSON struct {
	Usable bool     `json:"usable"`
	Why    []string `json:"why"` // it is not
}

type keyJSON struct {
	File string   `json:"file"`
	Key  string   `json:"key"`
	Fits []string `json:"fits"`
}

func (a *app) tlsInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE…",
		Short: "show what certificates and keys are, and whether they fit each other",
		Long: `Inspect reads files with certificates and private keys, in PEM. Of each certificate it shows
whom it names, in which role, until when it is valid, at which hosts, what it lacks to be used
by a node or by a client, which of the other files is its key, and which has signed it. Files
that hold nothing but CAs count as the CAs that are trusted. It never shows a key.

The exit code is 1 if something is wrong whatever the files are for: one cannot be read, a
key fits none of the certificates, or a certificate has ended, is not valid yet, or is signed
by none of the CAs.`,
		Example: `  locknode tls inspect pki/*.crt
  locknode tls inspect ca.crt n1.crt n1.key
  locknode tls inspect ca-old.crt ca-new.crt n1.crt -o json`,
		Args: arguments(1, -1, "FILE…"),
		RunE: func(_ *cobra.Command, args []string) error { return a.tlsInspect(args, time.Now()) },
	}
}

func (a *app) tlsInspect(paths []string, now time.Time) error {
	in := certs.Inspect(paths, now)
	var err error
	if a.json {
		err = a.printJSON(inspectDocument(in, now))
	} else {
		err = a.printf("%s", inspectText(in, now))
	}
	if err == nil && len(in.Faults) > 0 {
		err = &exitError{code: exitOther} // the faults are in the result
	}
	return err
}

func inspectDocument(in certs.Inspection, now time.Time) inspectJSON {
	d := inspectJSON{CAChecked: in.Checked, Certificates: []certJSON{}, Keys: []keyJSON{}, Faults: list(in.Faults)}
	for _, c := range in.Certs {
		one := certJSON{
			File: c.File, Place: c.Place, Subject: c.Subject, CA: c.CA, Issuer: c.Issuer, Serial: c.Serial, Key: c.Key, Usages: list(c.Usages),
			Hosts: list(c.Hosts), NotBefore: rfc3339(c.NotBefore), NotAfter: rfc3339(c.NotAfter), DaysLeft: c.DaysLeft(now), KeyFiles: list(c.KeyFiles), SignedBy: list(c.SignedBy),
		}
		if id := c.Identity; id != nil {
			one.Role, one.Name, one.Cluster = string(id.Role), id.Name, id.Cluster
			if c.Named {
				one.URI = id.String()
			}
		}
		if !c.CA {
			one.AsNode, one.AsClient = &fitsJSON{len(c.NotNode) == 0, list(c.NotNode)}, &fitsJSON{len(c.NotClient) == 0, list(c.NotClient)}
		}
		d.Certificates = append(d.Certificates, one)
	}
	for _, k := range in.Keys {
		d.Keys = append(d.Keys, keyJSON{k.File, k.Kind, list(k.Fits)})
	}
	return d
}

// list is all, and never null in JSON.
func list(all []string) []string { return append([]string{}, all...) }

func inspectText(in certs.Inspection, now time.Time) string {
	var b strings.Builder
	several := len(in.Keys) > 0 || len(in.Certs) > 1
	for _, c := range in.Certs {
		certText(&b, c, several, in.Checked, now)
	}
	for _, k := range in.Keys {
		fmt.Fprintf(&b, "%s: private key, %s\n", k.File, k.Kind)
		fact(&b, "fits", orNone(k.Fits, "none of the certificates"))
	}
	for _, fault := range in.Faults {
		fmt.Fprintf(&b, "wrong: %s\n", fault)
	}
	return b.String()
}

// fact writes one fact below a file.
func fact(b *strings.Builder, what, text string) { fmt.Fprintf(b, "  %-12s %s\n", what, text) }

func orNone(all []string, none string) string {
	if len(all) == 0 {
		return none
	}
	return strings.Join(all, ", ")
}

func certText(b *strings.Builder, c certs.CertReport, several, checked bool, now time.Time) {
	place := ""
	if c.Place > 1 {
		place = fmt.Sprintf(", certificate %d", c.Place)
	}
	fmt.Fprintf(b, "%s%s: %s\n", c.File, place, whom(c))
	fact(b, "valid", validText(c.Validity, now))
	if len(c.Hosts) > 0 || !c.CA {
		fact(b, "hosts", orNone(c.Hosts, "none"))
	}
	if len(c.Usages) > 0 || !c.CA {
		fact(b, "usages", orNone(c.Usages, "any"))
	}
	fact(b, "issuer", quoteName(c.Issuer))
	fact(b, "serial", c.Serial)
	fact(b, "key", c.Key)
	if several {
		if len(c.SignedBy) > 0 {
			fact(b, "signed by", strings.Join(c.SignedBy, ", "))
		}
		if len(c.KeyFiles) > 0 {
			fact(b, "key file", strings.Join(c.KeyFiles, ", "))
		}
	}
	if !c.CA {
		fact(b, "as a node", verdict(c.NotNode, checked))
		if len(c.NotNode) == 0 && len(c.Hosts) == 0 {
			fact(b, "", "but clients refuse it: it has no host at which they could reach the node")
		}
		fact(b, "as a client", verdict(c.NotClient, checked))
	}
}

// verdict says whether a certificate can be used, and whether its CA was looked at.
func verdict(why []string, checked bool) string {
	switch {
	case len(why) > 0:
		return "no: " + strings.Join(why, "; ")
	case !checked:
		return "yes, if a trusted CA has signed it: to check that, give the file of the CA as well"
	default:
		return "yes"
	}
}

// whom says what a certificate is.
func whom(c certs.CertReport) string {
	switch id := c.Identity; {
	case c.CA:
		return "CA " + quoteName(c.Subject)
	case id == nil:
		return "certificate of " + quoteName(c.Subject) + ", which is no valid name for a node or client"
	case id.Name == "":
		return "client without a name, " + quoteName(c.Subject)
	case id.Cluster == "" && id.Role == certs.Node:
		return "node " + quoteName(id.Name) + " of a cluster without a name"
	case id.Cluster == "":
		return "client " + quoteName(id.Name)
	default:
		return string(id.Role) + " " + quoteName(id.Name) + " of cluster " + quoteName(id.Cluster)
	}
}

func validText(v certs.Validity, now time.Time) string {
	until := "until " + v.NotAfter.UTC().Format(time.DateTime) + " UTC"
	switch days := v.DaysLeft(now); {
	case now.After(v.NotAfter):
		return fmt.Sprintf("no more: it was %s, %s ago", until, counted(-days-1, "day"))
	case now.Before(v.NotBefore):
		return fmt.Sprintf("not yet: from %s UTC %s", v.NotBefore.UTC().Format(time.DateTime), until)
	default:
		return fmt.Sprintf("%s, %s left", until, counted(days, "day"))
	}
}
