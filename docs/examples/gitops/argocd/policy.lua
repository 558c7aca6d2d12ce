-- Health of a QualityPolicy or RoutingPolicy: whether it is accepted. One that another overrides is healthy.
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for nexus-operator to see it"}
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Accepted" then
    if condition.status == "True" then
      return {status = "Healthy", message = condition.message}
    end
    return {status = "Degraded", message = condition.reason .. ": " .. (condition.message or "")}
  end
end
return {status = "Progressing", message = "waiting for nexus-operator to judge it"}
