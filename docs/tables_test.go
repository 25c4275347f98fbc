package docs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func TestTableOfCodesIsThatOfTheProgram(t *testing.T) {
	documented := make(map[apiv1.Code]bool)
	for _, row := range rows(section(t, read(t, api), "## Codes")) {
		if len(row) != 7 {
			t.Errorf("row %q has %d cells, want 7", row, len(row))
			continue
		}
		n, err := strconv.Atoi(row[0])
		if err != nil {
			t.Errorf("row %q: %v", row, err)
			continue
		}
		code := apiv1.Code(n)
		documented[code] = true
		want := []string{"`" + code.String() + "`", strconv.Itoa(code.HTTPStatus()), code.GRPC().String(), strconv.Itoa(code.ExitCode()), code.Retry().String()}
		if got := row[1:6]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("code %d: the table says %q, the program %q", n, got, want)
		}
		if row[6] == "" {
			t.Errorf("code %d: the table does not say what it means", n)
		}
	}
	for code := range apiv1.Code(256) {
		if known := code.String() != fmt.Sprintf("code_%d", code); known && !documented[code] {
			t.Errorf("code %d, %s, is not in the table", code, code)
		}
	}
}

func TestExitCodesOfAnswersAreDocumented(t *testing.T) {
	documented := make(map[string]bool)
	for _, row := range rows(section(t, read(t, operations), "### Exit codes")) {
		documented[row[0]] = true
	}
	for code := range apiv1.Code(256) {
		if exit := strconv.Itoa(code.ExitCode()); !documented[exit] {
			t.Errorf("exit code %s, of %s, is not in the table", exit, code)
		}
	}
}

// messageTables maps each message to the words in the first column of the table
// that follows the paragraph which names it.
func messageTables(t *testing.T) map[string]map[string]bool {
	t.Helper()
	tables := make(map[string]map[string]bool)
	var named []string // in the last paragraph
	for _, block := range strings.Split(section(t, read(t, api), "### Messages"), "\n\n") {
		if !strings.HasPrefix(strings.TrimSpace(block), "|") {
			named = quoted(block)
			continue
		}
		fields := make(map[string]bool)
		for _, row := range rows(block) {
			for _, f := range quoted(row[0]) {
				fields[f] = true
			}
			// "or one of `a`, `b`" stands in the second column.
			if strings.HasPrefix(row[1], "or one of ") {
				for _, f := range quoted(row[1]) {
					fields[f] = true
				}
			}
		}
		for _, name := range named {
			tables[name] = fields
		}
	}
	return tables
}

func TestEveryFieldOfEveryMessageIsDocumented(t *testing.T) {
	tables := messageTables(t)
	text := read(t, api)
	messages := apiv1.File_locknode_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		name := string(m.Name())
		fields := m.Fields()
		if fields.Len() == 0 {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("message %s is not mentioned", name)
			}
			continue
		}
		for j := range fields.Len() {
			if f := string(fields.Get(j).Name()); !tables[name][f] {
				t.Errorf("field %s.%s is in no table", name, f)
			}
		}
	}
}

func TestDocumentedFieldsExist(t *testing.T) {
	messages := apiv1.File_locknode_proto.Messages()
	exists := make(map[string]bool) // in any message: tables serve several
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			exists[string(fields.Get(j).Name())] = true
		}
	}
	for message, fields := range messageTables(t) {
		for f := range fields {
			if !exists[f] {
				t.Errorf("the table of %s has %s, and no message has such a field", message, f)
			}
		}
	}
}

func TestEveryCallIsDocumented(t *testing.T) {
	calls := make(map[string]bool)
	for _, row := range rows(section(t, read(t, api), "### Calls")) {
		for _, name := range quoted(row[0]) {
			calls[name] = true
		}
	}
	services := apiv1.File_locknode_proto.Services()
	for i := range services.Len() {
		each(services.Get(i).Methods(), func(m protoreflect.MethodDescriptor) {
			if !calls[string(m.Name())] {
				t.Errorf("call %s is not in the table", m.FullName())
			}
			delete(calls, string(m.Name()))
		})
	}
	for name := range calls {
		t.Errorf("call %s is in the table and does not exist", name)
	}
}

func each(methods protoreflect.MethodDescriptors, f func(protoreflect.MethodDescriptor)) {
	for i := range methods.Len() {
		f(methods.Get(i))
	}
}
