//go:build programs

// Package programs names what is built from other modules, so that their versions are kept in go.mod.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
