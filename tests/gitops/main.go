// Command gitops-health tells what GitOps tools make of an object. It reads one request of JSON from its standard input: the
// object, a health check of Argo CD in Lua, and health check expressions of Flux. It writes what kstatus (Flux, kpt, ...)
// and those two say of the object.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type request struct {
	Object json.RawMessage                  `json:"object"`
	Lua    string                           `json:"lua"`
	Flux   kustomize.HealthCheckExpressions `json:"flux"`
}

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type answer struct {
	Kstatus verdict `json:"kstatus"`
	ArgoCD  verdict `json:"argocd"`
	Flux    string  `json:"flux"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	var asked request
	if err := json.NewDecoder(input).Decode(&asked); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil {
		return fmt.Errorf("reading the object: %w", err)
	}
	computed, err := status.Compute(object)
	if err != nil {
		return fmt.Errorf("kstatus: %w", err)
	}
	argocd, err := argocdHealth(object, asked.Lua)
	if err != nil {
		return fmt.Errorf("health check of Argo CD: %w", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Flux)
	if err != nil {
		return fmt.Errorf("health check expressions of Flux: %w", err)
	}
	flux, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return fmt.Errorf("health check expressions of Flux: %w", err)
	}
	kstatus := verdict{computed.Status.String(), computed.Message}
	return json.NewEncoder(output).Encode(answer{kstatus, argocd, flux.Status.String()})
}

// argocdHealth does what Argo CD does: an object that is being deleted is not asked about; a check has a second, sees
// the object as the global obj, and has the libraries base, table and package alone.
// Source: GetResourceHealth in gitops-engine/pkg/health, and util/lua/lua.go of Argo CD.
func argocdHealth(object *unstructured.Unstructured, script string) (verdict, error) {
	if object.GetDeletionTimestamp() != nil {
		return verdict{"Progressing", "Pending deletion"}, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	libraries := map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	}
	for _, name := range []string{lua.LoadLibName, lua.BaseLibName, lua.TabLibName} {
		open := lua.P{Fn: state.NewFunction(libraries[name]), Protect: true}
		if err := state.CallByParam(open, lua.LString(name)); err != nil {
			return verdict{}, err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("a table is expected, not %s", state.Get(-1).Type())
	}
	health, isString := table.RawGetString("status").(lua.LString)
	valid := []string{"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}
	if !isString || !slices.Contains(valid, string(health)) {
		return verdict{}, fmt.Errorf("%v is no health status", table.RawGetString("status"))
	}
	switch message := table.RawGetString("message").(type) {
	case lua.LString:
		return verdict{string(health), string(message)}, nil
	case *lua.LNilType:
		return verdict{string(health), ""}, nil
	default:
		return verdict{}, fmt.Errorf("the message is a %s", message.Type())
	}
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case string:
		return lua.LString(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
