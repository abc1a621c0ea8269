package events

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestEveryKindIsRegistered finds each declared kind in the registry. An event
// of a missing kind could be encoded but not decoded.
func TestEveryKindIsRegistered(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "kind.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || len(spec.Values) != 1 {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Kind" {
			declared++
			k, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if kinds[Kind(k)] == nil {
				t.Errorf("%s is declared and not registered", k)
			}
		}
		return true
	})
	if declared != len(kinds) {
		t.Errorf("%d kinds are declared, and %d registered", declared, len(kinds))
	}
}

func TestRegistryRefusesOneKindTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("two changes of one kind are registered")
		}
	}()
	registry(changeOf[TokenCreated], changeOf[TokenRevoked], changeOf[TokenRevoked])
}
