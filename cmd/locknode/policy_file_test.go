package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/locknode/locknode/client"
)

const shopPolicies = `# the shop and its operators
name: shop
for: [token:shop, "label:team=shop"]
rules:
  - {allow: [read, lock], prefix: orders/}
  - {deny: [lock], name: orders/frozen}
  - allow: [lock]
    prefix: "own/${identity}/"
quota: {sessions: 10, ops_per_second: 100, bytes: 1MiB}
---
name: everybody
for: ["*"]
rules:
  - {allow: [read], prefix: ""}
---
name: operators
for: [cert:ops]
rules:
  - {allow: [admin]}
  - {allow: [force], prefix: ""}
`

func TestPolicyFileIsRead(t *testing.T) {
	read, lock := client.RightRead, client.RightLock
	want := []client.Policy{
		{
			Name: "shop", For: []string{"token:shop", "label:team=shop"},
			Rules: []client.Rule{
				{Rights: []client.Right{read, lock}, Name: "orders/"},
				{Deny: true, Rights: []client.Right{lock}, Name: "orders/frozen", Exact: true},
				{Rights: []client.Right{lock}, Name: "own/${identity}/"},
			},
			Quota: client.Quota{Sessions: 10, OpsPerSecond: 100, Bytes: 1 << 20},
		},
		{Name: "everybody", For: []string{"*"}, Rules: []client.Rule{{Rights: []client.Right{read}}}},
		{Name: "operators", For: []string{"cert:ops"}, Rules: []client.Rule{{Rights: []client.Right{"admin"}}, {Rights: []client.Right{"force"}}}},
	}
	got, err := parsePolicies("shop.yaml", []byte(shopPolicies))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v, want\n%+v", err, got, want)
	}
	// A list of the same.
	list := "policies:\n"
	for doc := range strings.SplitSeq(shopPolicies, "---\n") {
		lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(doc, "# the shop and its operators\n"), "\n"), "\n")
		list += "- " + strings.Join(lines, "\n  ") + "\n"
	}
	if got, err := parsePolicies("list.yaml", []byte(list)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("as a list: %v\n%+v, want\n%+v", err, got, want)
	}
	if got, err := parsePolicies("printed.yaml", []byte(policiesYAML(want))); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("what is printed is not what was read: %v\n%+v\n%s", err, got, policiesYAML(want))
	}
}

// Each fault is named with its line, all of them at once, and what must stand there instead.
func TestFaultsOfAPolicyFileAreNamedWithTheirLines(t *testing.T) {
	for text, want := range map[string][]string{
		"name: a\nfor: [token:a]\nrule: []\n":                                       {"p.yaml:3: unknown key rule, must be for, name, quota or rules"},
		"name: a\nfor: [shop]\nrules:\n- {allow: [raed], prefix: a}\n":              {`p.yaml:2: for: is "shop", must be token:NAME`, `p.yaml:4: allow: is "raed", must be read, lock, force or admin`},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [read]}\n":                      {`p.yaml:4: rule: has no names`, `prefix: "" is all names`},
		"name: a\nfor: [token:a]\nrules:\n- {prefix: a}\n":                          {"p.yaml:4: rule: must have either allow or deny"},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [read], deny: [lock], name: a}": {"p.yaml:4: rule: must have either allow or deny"},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [read], prefix: a, name: a}":    {"p.yaml:4: rule: has prefix and name"},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [], prefix: a}":                 {"p.yaml:4: rule: has no rights"},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [admin], prefix: a}":            {"p.yaml:4: rule: has admin and the name"},
		"name: a\nfor: [token:a]\nrules:\n- {allow: [read], name: \"\"}":            {"p.yaml:4: rule: name: is empty"},
		"name: a\nfor: [token:a]\nquota: {sessions: 0}":                             {`p.yaml:3: quota: sessions: is "0", must be a whole number of 1 or more`},
		"name: a\nfor: [token:a]\nquota: {bytes: lots}":                             {`p.yaml:3: quota: bytes: is "lots", must be a size`},
		"name: a\nfor: [token:a]\nquota:\n  session: 1":                             {"p.yaml:4: unknown key session"},
		"for: [token:a]\n":                 {"p.yaml:1: name: is missing"},
		"name: a\n":                        {"p.yaml:1: policy a: for: is missing"},
		"name: a\nname: b\nfor: [token:a]": {"p.yaml:2: name: is already set in line 1"},
		"name: a\nfor: ['*']\n---\nname: a\nfor: ['*']\n": {`p.yaml:4: name: is "a", which the policy in line 1 has already`},
		"policies: 7\n":           {"p.yaml:1: policies: must be a list"},
		"- name: a\n":             {"p.yaml:1: must be fields"},
		"name: [a]\nfor: ['*']\n": {"p.yaml:1: name: must be one text"},
		"":                        {"p.yaml: has no policies"},
		"# nothing\n":             {"p.yaml: has no policies"},
		"name: a\n for: b":        {"read p.yaml", "line 2"},
	} {
		_, err := parsePolicies("p.yaml", []byte(text))
		for _, want := range want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q:\n%v, want %q", text, err, want)
			}
		}
	}
}

func TestPolicyFileHasALimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(path, make([]byte, maxPolicyFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPolicies(path, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a file beyond the limit: %v", err)
	}
	if got, err := readPolicies("-", strings.NewReader(shopPolicies)); err != nil || len(got) != 3 {
		t.Errorf("from standard input: %d policies, %v", len(got), err)
	}
}

// FuzzPolicyFile: no file crashes the program, and what one says is what is printed of it.
func FuzzPolicyFile(f *testing.F) {
	f.Add(shopPolicies)
	f.Add("a: &a [*a]")
	f.Add("policies: &p [{name: a, for: ['*'], rules: &r [{allow: [read], prefix: x}, {deny: [read], name: \"\\u2028\\0\"}]}]")
	f.Fuzz(func(t *testing.T, text string) {
		policies, err := parsePolicies("p.yaml", []byte(text))
		if err != nil {
			return
		}
		for _, p := range policies {
			for _, r := range p.Rules {
				if !utf8.ValidString(r.Name) {
					return
				}
			}
		}
		printed := policiesYAML(policies)
		again, err := parsePolicies("printed.yaml", []byte(printed))
		if err != nil || !reflect.DeepEqual(policies, again) {
			t.Errorf("%v\n%+v, want\n%+v\nprinted:\n%s", err, again, policies, printed)
		}
	})
}
