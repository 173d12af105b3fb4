{{/* Apart from others, as in files/components. */}}
{{- define "accelerator-operator.identity" -}}
{{ .apiVersion }} {{ .kind }} {{ .metadata.namespace | default "" }} {{ .metadata.name }}
{{- end }}

{{/* A merge patch, as RFC 7386 has it, into an object: {into, patch}. Writes nothing out. */}}
{{- define "accelerator-operator.merge" }}
{{- $into := .into }}
{{- range $key, $value := .patch }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $into $key }}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $into $key)) }}
{{- include "accelerator-operator.merge" (dict "into" (get $into $key) "patch" $value) }}
{{- else }}
{{- $_ := set $into $key $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* What kustomize makes of the overlay default and of the components that are switched on: {objects}. */}}
{{- define "accelerator-operator.objects" }}
{{- $objects := (.Files.Get "files/objects.json" | fromJson).objects }}
{{- range $name, $isOn := .Values.components }}
{{- $text := $.Files.Get (printf "files/components/%s.json" $name) }}
{{- if not $text }}
{{- fail (printf "components.%s: there is no such component" $name) }}
{{- end }}
{{- if $isOn }}
{{- $component := fromJson $text }}
{{- $kept := list }}
{{- range $object := $objects }}
{{- $identity := include "accelerator-operator.identity" $object }}
{{- if not (has $identity $component.removed) }}
{{- include "accelerator-operator.merge" (dict "into" $object "patch" (get $component.changed $identity | default dict)) }}
{{- $kept = append $kept $object }}
{{- end }}
{{- end }}
{{- $objects = concat $kept $component.added }}
{{- end }}
{{- end }}
{{- toJson (dict "objects" $objects) }}
{{- end }}

{{/* The settings of a program's Deployment: {values, object}. Writes nothing out. */}}
{{- define "accelerator-operator.settings" }}
{{- $pod := .object.spec.template.spec }}
{{- $image := .values.image }}
{{- if not (kindIs "invalid" .values.replicas) }}
{{- $_ := set .object.spec "replicas" .values.replicas }}
{{- end }}
{{- with $image.pullSecrets }}
{{- $secrets := $pod.imagePullSecrets | default list }}
{{- range . }}
{{- $secrets = append $secrets (dict "name" .) }}
{{- end }}
{{- $_ := set $pod "imagePullSecrets" $secrets }}
{{- end }}
{{- with .values.nodeSelector }}
{{- $_ := set $pod "nodeSelector" (merge (deepCopy .) ($pod.nodeSelector | default dict)) }}
{{- end }}
{{- with .values.tolerations }}
{{- $_ := set $pod "tolerations" (concat ($pod.tolerations | default list) .) }}
{{- end }}
{{- with .values.priorityClassName }}
{{- $_ := set $pod "priorityClassName" . }}
{{- end }}
{{- $name := .object.metadata.name }}
{{- $resources := .values.resources }}
{{- range $container := $pod.containers }}
{{- $repository := $container.image | splitList "@" | first | regexFind "^.*:" | trimSuffix ":" }}
{{- $tag := trimPrefix (printf "%s:" $repository) $container.image }}
{{- with $image.repository }}
{{- $repository = printf "%s/%s" . $name }}
{{- end }}
{{- $reference := printf "%s:%s" $repository ($image.tag | default $tag) }}
{{- with get $image.digests $name }}
{{- $reference = printf "%s@%s" $repository . }}
{{- end }}
{{- $_ := set $container "image" $reference }}
{{- with $image.pullPolicy }}
{{- $_ := set $container "imagePullPolicy" . }}
{{- end }}
{{- with $resources }}
{{- include "accelerator-operator.merge" (dict "into" $container.resources "patch" .) }}
{{- end }}
{{- end }}
{{- end }}
