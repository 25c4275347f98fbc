package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locknode/locknode/client"
)

// A file of policies has one or several YAML documents. Each is a policy, or has a list of
// them below "policies":
//
//	name: shop
//	for: [token:shop]
//	rules:
//	  - {allow: [read, lock], prefix: orders/}
//	  - {deny: [lock], name: orders/frozen}
//	quota: {sessions: 10, ops_per_second: 100}
//
// What the file cannot say is an error with its line, and so is a key that is not known: a
// rule that was ignored would give rights, or take them.

const (
	maxPolicyFile = 4 << 20
	maxPolicies   = 1000 // of one file: as many as a table has by default
	maxRules      = 256  // of one policy
	maxFor        = 256  // of one policy
)

// rightNames are the rights, in the order in which they are printed.
var rightNames = []string{"read", "lock", "force", "admin"}

// readPolicies reads a file of policies. It reports all faults at once.
func readPolicies(path string, stdin io.Reader) ([]client.Policy, error) {
	data, err := limitedFile(path, stdin, maxPolicyFile)
	if err != nil {
		return nil, err
	}
	return parsePolicies(path, data)
}

// limitedFile returns what is in a file, or in standard input if path is "-".
func limitedFile(path string, stdin io.Reader, most int64) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("is longer than %d bytes", most)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// policyReader walks YAML trees and collects policies and faults.
type policyReader struct {
	path     string
	policies []client.Policy
	lines    map[string]int // of the policies, by name
	faults   []error
}

func parsePolicies(path string, data []byte) ([]client.Policy, error) {
	r := &policyReader{path: path, lines: make(map[string]int)}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if len(doc.Content) > 0 && doc.Content[0].Tag != "!!null" {
			r.document(doc.Content[0])
		}
		if len(r.faults) > 100 {
			break
		}
	}
	if len(r.policies) == 0 && len(r.faults) == 0 {
		return nil, fmt.Errorf("%s: has no policies, must have one at least", path)
	}
	return r.policies, errors.Join(r.faults...)
}

func (r *policyReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, &fault{source: fmt.Sprintf("%s:%d", r.path, n.Line), allowed: fmt.Errorf(format, args...)})
}

// document reads a policy, or a list of them.
func (r *policyReader) document(n *yaml.Node) {
	n = resolveAlias(n)
	if n.Kind == yaml.MappingNode && len(n.Content) >= 2 && n.Content[0].Value == "policies" {
		r.fields(n, map[string]func(*yaml.Node){
			"policies": func(list *yaml.Node) { r.each(list, "policies", maxPolicies, r.policy) },
			"index":    func(*yaml.Node) {}, // of "policy ls -o json"
		})
		return
	}
	r.policy(n)
}

// fields calls the function of each key of a mapping. It returns false, and notes a fault, for
// what is no mapping.
func (r *policyReader) fields(n *yaml.Node, known map[string]func(*yaml.Node)) bool {
	n = resolveAlias(n)
	if n.Kind != yaml.MappingNode {
		r.fault(n, "must be fields, written as key: value; see `locknode policy apply --help`")
		return false
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolveAlias(n.Content[i+1])
		read, ok := known[key.Value]
		line, twice := seen[key.Value]
		switch {
		case twice:
			r.fault(key, "%s: is already set in line %d", printable(key.Value), line)
		case !ok:
			r.fault(key, "unknown key %s, must be %s", printable(key.Value), either(sortedKeys(known)))
		default:
			read(value)
		}
		seen[key.Value] = key.Line
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// each calls read for the elements of a list, at most so many.
func (r *policyReader) each(n *yaml.Node, name string, most int, read func(*yaml.Node)) {
	switch {
	case n.Tag == "!!null":
	case n.Kind != yaml.SequenceNode:
		r.fault(n, "%s: must be a list", name)
	case len(n.Content) > most:
		r.fault(n, "%s: has %d elements, must have at most %d", name, len(n.Content), most)
	default:
		for _, one := range n.Content {
			read(resolveAlias(one))
		}
	}
}

// scalar returns a value that is one text, and notes a fault for any other.
func (r *policyReader) scalar(n *yaml.Node, name string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		r.fault(n, "%s: must be one text", name)
		return ""
	}
	return n.Value
}

func (r *policyReader) policy(n *yaml.Node) {
	var p client.Policy
	before := len(r.faults)
	ok := r.fields(n, map[string]func(*yaml.Node){
		"name": func(v *yaml.Node) { p.Name = r.scalar(v, "name") },
		"for": func(v *yaml.Node) {
			r.each(v, "for", maxFor, func(one *yaml.Node) {
				who := r.scalar(one, "for")
				if err := checkFor(who); err != nil {
					r.fault(one, "for: %w", wrong(who, err))
				}
				p.For = append(p.For, who)
			})
		},
		"rules": func(v *yaml.Node) {
			r.each(v, "rules", maxRules, func(one *yaml.Node) { p.Rules = append(p.Rules, r.rule(one)) })
		},
		"quota": func(v *yaml.Node) { p.Quota = r.quota(v) },
	})
	line, twice := r.lines[p.Name]
	switch {
	case !ok || len(r.faults) > before:
	case p.Name == "":
		r.fault(n, "name: is missing, must be the name of the policy")
	case twice:
		r.fault(n, "name: is %q, which the policy in line %d has already", p.Name, line)
	case len(p.For) == 0:
		r.fault(n, "policy %s: for: is missing, must say whom it is for, such as [token:%s]", printable(p.Name), printable(p.Name))
	}
	r.lines[p.Name] = n.Line
	r.policies = append(r.policies, p)
}

// checkFor checks whom a policy is for.
func checkFor(who string) error {
	kind, name, ok := strings.Cut(who, ":")
	switch {
	case who == "*", who == "anonymous":
		return nil
	case ok && name != "" && (kind == "token" || kind == "cert"):
		return nil
	case ok && kind == "label" && strings.Index(name, "=") > 0:
		return nil
	}
	return errors.New("must be token:NAME, cert:NAME, label:KEY=VALUE, anonymous or * for everybody")
}

func (r *policyReader) rule(n *yaml.Node) client.Rule {
	var rule client.Rule
	var keys []string
	rights := func(key string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			keys = append(keys, key)
			rule.Deny = key == "deny"
			r.each(v, key, len(rightNames), func(one *yaml.Node) {
				right := r.scalar(one, key)
				if !slices.Contains(rightNames, right) {
					r.fault(one, "%s: is %q, must be %s", key, right, either(rightNames))
				}
				rule.Rights = append(rule.Rights, client.Right(right))
			})
		}
	}
	names := func(key string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			keys = append(keys, key)
			rule.Exact = key == "name"
			rule.Name = r.scalar(v, key)
		}
	}
	before := len(r.faults)
	ok := r.fields(n, map[string]func(*yaml.Node){
		"allow": rights("allow"), "deny": rights("deny"), "prefix": names("prefix"), "name": names("name"),
	})
	if !ok || len(r.faults) > before {
		return rule
	}
	has := func(key string) bool { return slices.Contains(keys, key) }
	admin := slices.Contains(rule.Rights, client.RightAdmin)
	switch {
	case has("allow") == has("deny"):
		r.fault(n, "rule: must have either allow or deny")
	case len(rule.Rights) == 0:
		r.fault(n, "rule: has no rights, must have %s", either(rightNames))
	case has("prefix") && has("name"):
		r.fault(n, "rule: has prefix and name, must have one of them")
	case admin && rule.Name != "":
		r.fault(n, "rule: has admin and the name %q, must be for all names (prefix: \"\"), because admin is not about locks", rule.Name)
	case !has("prefix") && !has("name") && !admin:
		r.fault(n, "rule: has no names, must have a prefix or a name; prefix: \"\" is all names")
	case has("name") && rule.Name == "":
		r.fault(n, "rule: name: is empty, must be the name of a lock")
	}
	return rule
}

// quotaFields are the fields of a quota.
func quotaFields(q *client.Quota) []quotaField {
	return []quotaField{
		{"sessions", &q.Sessions, nil},
		{"grants", &q.Grants, nil},
		{"waiters", &q.Waiters, nil},
		{"bytes", nil, &q.Bytes},
		{"ops_per_second", &q.OpsPerSecond, nil},
		{"connections", &q.Connections, nil},
		{"streams", &q.Streams, nil},
		{"unsent_bytes", nil, &q.UnsentBytes},
	}
}

// quotaField is a field of a quota: a count, or a size.
type quotaField struct {
	name  string
	count *int
	size  *int64
}

func (f quotaField) value() int64 {
	if f.size != nil {
		return *f.size
	}
	return int64(*f.count)
}

func (r *policyReader) quota(n *yaml.Node) client.Quota {
	var q client.Quota
	if n.Tag == "!!null" {
		return q
	}
	known := map[string]func(*yaml.Node){}
	for _, f := range quotaFields(&q) {
		known[f.name] = func(v *yaml.Node) {
			text := r.scalar(v, f.name)
			if f.size != nil {
				size, err := parseBytes(text)
				if err == nil && size == 0 {
					err = errors.New("must be more than 0; leave it out to have none")
				}
				if err != nil {
					r.fault(v, "quota: %s: %w", f.name, wrong(text, err))
				}
				*f.size = size
				return
			}
			count, err := strconv.ParseInt(text, 10, 32)
			if err != nil || count < 1 {
				r.fault(v, "quota: %s: is %q, must be a whole number of 1 or more; leave it out to have none", f.name, text)
			}
			*f.count = int(count)
		}
	}
	r.fields(n, known)
	return q
}

// policiesYAML writes policies as a file that readPolicies reads.
func policiesYAML(policies []client.Policy) string {
	var b strings.Builder
	for i, p := range policies {
		if i > 0 {
			b.WriteString("---\n")
		}
		fmt.Fprintf(&b, "name: %s\n", yamlText(p.Name))
		fmt.Fprintf(&b, "for: [%s]\n", yamlList(p.For))
		b.WriteString("rules:\n")
		for _, rule := range p.Rules {
			verb, names := "allow", "prefix"
			if rule.Deny {
				verb = "deny"
			}
			if rule.Exact {
				names = "name"
			}
			fmt.Fprintf(&b, "  - {%s: [%s], %s: %s}\n", verb, yamlList(rule.Rights), names, yamlText(rule.Name))
		}
		var quota []string
		for _, f := range quotaFields(&p.Quota) {
			if v := f.value(); v != 0 {
				quota = append(quota, fmt.Sprintf("%s: %d", f.name, v))
			}
		}
		if len(quota) > 0 {
			fmt.Fprintf(&b, "quota: {%s}\n", strings.Join(quota, ", "))
		}
	}
	return b.String()
}

func yamlList[T ~string](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, yamlText(string(v)))
	}
	return strings.Join(texts, ", ")
}

// yamlText is a text as it stands in a list or mapping in one line.
func yamlText(s string) string {
	plain := s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-:=") == ""
	if plain && !strings.Contains("-:=./0123456789_", s[:1]) && !strings.HasSuffix(s, ":") {
		var v any
		if yaml.Unmarshal([]byte(s), &v) == nil {
			if same, ok := v.(string); ok && same == s {
				return s
			}
		}
	}
	return strconv.Quote(s) // YAML has the same escapes
}
