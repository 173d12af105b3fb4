// Command monitoring-objects tells whether objects are what the Prometheus Operator takes. It reads a list of them as JSON from its
// standard input, and decodes each strictly into the type of its kind: a field that the type does not have is an error, and
// so is one that is there twice. It writes how many it has seen.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	strict "sigs.k8s.io/json"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	var objects []json.RawMessage
	if err := json.NewDecoder(input).Decode(&objects); err != nil {
		return fmt.Errorf("reading objects: %w", err)
	}
	for _, object := range objects {
		if err := check(object); err != nil {
			return err
		}
	}
	return json.NewEncoder(output).Encode(len(objects))
}

func check(object []byte) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(object, &head); err != nil {
		return fmt.Errorf("reading the kind of an object: %w", err)
	}
	types := map[string]any{
		monitoring.PodMonitorsKind:     &monitoring.PodMonitor{},
		monitoring.ServiceMonitorsKind: &monitoring.ServiceMonitor{},
		monitoring.PrometheusRuleKind:  &monitoring.PrometheusRule{},
	}
	into, known := types[head.Kind]
	if !known || head.APIVersion != monitoring.SchemeGroupVersion.String() {
		return fmt.Errorf("%s %s is not known here", head.APIVersion, head.Kind)
	}
	problems, err := strict.UnmarshalStrict(object, into)
	if err != nil {
		return fmt.Errorf("%s: %w", head.Kind, err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s: %v", head.Kind, problems)
	}
	return nil
}
