{{/* Exactly what the operator does, verb by verb; the same as manifests/rbac.yaml, which a test holds. */}}
{{- define "openworkflow.rules" -}}
- apiGroups: [openworkflow.dev]
  resources: [workflownamespaces]
  verbs: [get, list, watch]
- apiGroups: [openworkflow.dev]
  resources: [workflownamespaces/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list, patch]
{{- end -}}

{{/* Never list or watch: a list would hold the contents of all Secrets. */}}
{{- define "openworkflow.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end -}}

{{- define "openworkflow.subject" -}}
- kind: ServiceAccount
  name: {{ include "openworkflow.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}
