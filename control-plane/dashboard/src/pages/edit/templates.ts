// What a new document of each kind may begin with: short, right as it is where its service has a port 80.
import { serviceName } from "../../format";

export const KINDS = ["HTTPRoute", "GRPCRoute", "TrafficPolicy", "Service", "ExternalService", "MeshConfig"] as const;
export type Kind = (typeof KINDS)[number];

/** Those that are about a service. */
export const ABOUT_A_SERVICE: readonly string[] = ["HTTPRoute", "GRPCRoute", "TrafficPolicy"];

/** `service` as the mesh names it ("payments.demo"); empty: one that is to be filled in. */
export function template(kind: string, service: string): string {
  const { name, namespace } = service === "" ? { name: "my-service", namespace: "default" } : serviceName(service);
  const head = (apiVersion: string, suffix = "") =>
    `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata:\n  name: ${name}${suffix}\n  namespace: ${namespace}\nspec:\n`;
  const reference = `  - group: ""\n    kind: Service\n    name: ${name}\n`;
  const backend = `    backendRefs: # several share by their weight\n    - name: ${name}\n      port: 80\n`;
  switch (kind) {
    case "HTTPRoute":
      return `${head("gateway.networking.k8s.io/v1")}  parentRefs:\n${reference}  rules:\n  - matches:\n    - path:\n        type: PathPrefix\n        value: /\n${backend}`;
    case "GRPCRoute":
      return `${head("gateway.networking.k8s.io/v1", "-grpc")}  parentRefs:\n${reference}  rules:\n  - matches:\n    - method:\n        service: my.package.Service\n${backend}`;
    case "TrafficPolicy":
      return `${head("pillion.dev/v1alpha1")}  targetRefs:\n${reference}  timeouts:\n    request: 10s\n  retry:\n    attempts: 2\n`;
    case "Service":
      return `${head("v1")}  selector: # labels of the workloads that serve it\n    app: ${name}\n  ports:\n  - port: 80\n    targetPort: 8080\n    appProtocol: http\n`;
    case "ExternalService":
      return `${head("pillion.dev/v1alpha1", "-outside")}  host: api.example.com\n  ports:\n  - port: 443\n    appProtocol: https\n`;
    case "MeshConfig":
      return "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata:\n  name: mesh\nspec:\n  outbound: allowAny # or registryOnly\n  inbound: permissive # or strict\n";
    default:
      return "";
  }
}
